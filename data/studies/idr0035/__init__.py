"""The compound screen idr0035 (BBBC021). README.md says where images and annotation are from."""
