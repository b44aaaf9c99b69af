"""Layers and blocks that encoders, decoders and bottlenecks share."""
