"""The handwritten digits of MNIST. README.md says where they are from."""
