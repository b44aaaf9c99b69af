"""Breaks that were chosen by hand: (file, text as it stands, text as it would be wrong)."""

BY_HAND: tuple[tuple[str, str, str], ...] = ()
