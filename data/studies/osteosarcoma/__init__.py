"""Outlines of osteosarcoma cells. README.md says where they are from."""
