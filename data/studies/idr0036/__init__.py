"""The Cell Painting screen idr0036 (BBBC022). README.md says where images and annotation are from."""
