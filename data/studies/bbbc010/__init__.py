"""The C. elegans images of BBBC010. README.md says where they are from."""
