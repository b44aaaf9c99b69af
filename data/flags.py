"""Which flag of `python -m data.build` means something for which source; others are refused, never ignored."""

from data.sources.source import LAYOUTS
from data.studies.known import STUDIES
from data.studies.study import Study

_FILES = (*LAYOUTS, "pattern")  # sources of a user, and of a study that has the flags of its layout
_WITH_STACKS = ("table", "imagexpress", "operetta", "cellvoyager", "ome-tiff", "ome-zarr", "pattern")
_OF_PIXELS = tuple(source for source in _FILES if source != "contours")

# Flag -> sources that take it, beside the studies that say it of themselves. What is not here, all take.
_TAKEN_BY = {
    "layout": _FILES,
    "pattern": _FILES,
    "annotation": _FILES,
    # Names of folders are no plates with wells, and the others are of one format.
    "wells_per_plate": tuple(source for source in _FILES if source != "folder"),
    "sha256": _FILES,
    "channels": _OF_PIXELS,
    "z": (*_WITH_STACKS, "folder"),  # a TIFF of a folder may hold focal planes and time points
    "t": (*_WITH_STACKS, "folder"),
    "level": ("ome-zarr",),
    "masks": (),
    "mask": _OF_PIXELS,
    "crop": _OF_PIXELS,
    "overlap": _OF_PIXELS,
    "random_crops": _OF_PIXELS,
    "seed": _OF_PIXELS,
    "objects": _OF_PIXELS,
    "label_mask": _OF_PIXELS,
    "illumination": _OF_PIXELS,
}
# Flag -> kind of set that takes it; others are for both.
_OF_KIND = {
    **dict.fromkeys(("crop", "overlap", "random_crops", "objects", "label_mask", "illumination", "seed"), "images"),
    **dict.fromkeys(("points", "resampling", "mask"), "shapes"),
}
# Flag of images -> what must be given with it, and why.
_NEEDS = {
    "random_crops": ("crop", "the side of an example in pixels"),
    "objects": ("crop", "the side of an example in pixels"),
    "label_mask": ("crop", "the side of an example in pixels"),
    "overlap": ("crop", "the side of an example in pixels"),
    "masks": ("crop", "the side of an example in pixels"),
    "seed": ("random_crops", "whose places it draws"),
}
_WAYS_TO_CUT = ("random_crops", "objects", "label_mask", "overlap", "masks")


def flag(name: str) -> str:
    """ "random_crops" -> "--random-crops"."""
    return f"--{name.replace('_', '-')}"


def problem_of_flags(typed: set[str], kind: str, source: str | None) -> str | None:
    """Why a flag would be ignored; None if each means something.

    Args:
        typed: the flags, with underscores.
        kind: "images" or "shapes".
        source: a layout, "pattern", or the name of a known set with flags of its own; None where it is not known yet.
    """
    for name in sorted(typed):
        of_kind = _OF_KIND.get(name, kind)
        if of_kind != kind and kind == "images":
            return f"{flag(name)} needs --kind=shapes"
        if of_kind != kind:
            return f"--kind=shapes takes no {flag(name)}: it is about pixels, which are not kept"
        takers = _takers(name)
        if takers is not None and source is not None and source not in takers:
            of = f"the layout {source}" if source in LAYOUTS else "a pattern" if source == "pattern" else source
            return f"{flag(name)} means nothing for {of}; it is for {', '.join(takers)}"
    if kind == "images":
        for name, (needed, why) in _NEEDS.items():
            if name in typed and needed not in typed:
                return f"{flag(name)} needs {flag(needed)}, {why}"
        ways = [flag(name) for name in _WAYS_TO_CUT if name in typed]
        if len(ways) > 1:
            possible = ", ".join(map(flag, _WAYS_TO_CUT))
            return f"of {possible} only one is possible; here are {' and '.join(ways)}"
    return None


def _takers(name: str) -> tuple[str, ...] | None:
    """The sources that take a flag; None: all do."""
    if name not in _TAKEN_BY:
        return None
    return _TAKEN_BY[name] + tuple(
        study.name for study in STUDIES.values() if isinstance(study, Study) and name in study.flags
    )
