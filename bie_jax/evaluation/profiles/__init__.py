"""Profiles: from images to wells to treatments, corrected on their controls, and scored.

Plain functions over features [N, D] and a metadata table of N rows; none of them needs a run.
"""
