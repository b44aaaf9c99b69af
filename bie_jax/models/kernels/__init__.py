"""CPU forms of products and convolutions, each beside its plain twin."""
