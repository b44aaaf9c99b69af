"""Where images come from: one module per kind of source, each of which makes an `Index`."""
