"""The SARS-CoV-2 compound screens idr0094. README.md says where images and annotation are from."""
