"""The ORF localization screen idr0006. README.md says where images and annotation are from."""
