"""Dataset builders: raw images in, ArrayRecord sets out. Nothing here is imported by training."""
