"""SIMULATED plates in the manner of idr0093. README.md describes them; no image here was ever taken."""
