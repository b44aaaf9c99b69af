"""Treatments of a run: images become wells, corrected on controls, and these treatments, which are scored."""
