"""Fields of the siRNA screen idr0093 cut into tiles. README.md says where images and annotation are from."""
