"""Outlines of objects in numbers: contours, distance matrices, the way back, and classical descriptors."""
