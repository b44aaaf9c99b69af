"""The siRNA screen idr0093. README.md says where images and annotation are from."""
