"""What may be typed after `python -m data.build`."""

import argparse
import os
import re
from pathlib import Path
from typing import Literal

from bie_jax.shapes.resample import METHODS
from data.errors import BuildError
from data.fields.index import AxisChoice
from data.options import LAYOUTS, layout_of, problem_of_flags
from data.sources.contours import is_of_contours
from data.studies.known import STUDIES
from data.text import plain
from data.wells import PLATE_FORMATS

IMAGE_SETS = ("bbbc010", "bbbc021", "mnist", *STUDIES)  # known by name; as shapes they need another one

_TEXTS = ("plates", "wells", "channels", "label", "label_mask")  # flags that name what a source has


def parse(arguments: list[str], description: str | None) -> argparse.Namespace:
    """The flags, those that are not possible together refused: exit status 2 and one line on stderr.

    Args:
        arguments: as typed after `python -m data.build`.
        description: of the command, for --help.

    Returns:
        One attribute for each flag. `set_name` is what the set is called; `points`, `resampling` and `mask` have values
        if `kind` is "shapes".
    """
    parser = argparse.ArgumentParser(
        prog="python -m data.build",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    known = ", ".join(("simulated", *IMAGE_SETS, "osteosarcoma"))
    parser.add_argument("name", help=f"of the set: {known}, or a name of yours for images of yours")
    parser.add_argument("--kind", choices=("images", "shapes"), default="images", help="(default: images)")
    parser.add_argument("--as", dest="set_name", metavar="NAME", help="what the set is called instead")
    parser.add_argument("--data-dir", default="datasets", type=Path, help="folder of built sets (default: datasets)")
    parser.add_argument("--source", help="folder, table, archive or file with the images; or their URL")
    parser.add_argument("--sha256", help="of a source that is one file; bbbc021: a file of them")
    parser.add_argument("--layout", choices=LAYOUTS, help="how the source is organized (default: by its suffix)")
    parser.add_argument(
        "--pattern", help="regular expression for whole paths, instead: groups plate, well, site, channel, z, t"
    )
    parser.add_argument("--annotation", type=Path, help="table by plate and well, or of contours a line for each")
    parser.add_argument(
        "--label", default="", help="column, or plate, well, site, that is the label (default: the set's, or 'label')"
    )
    parser.add_argument("--channels", help="which, in this order; a,b or source=name,source=name (default: all)")
    parser.add_argument("--plates", help="a,b: only these plates")
    parser.add_argument("--wells", help="B02,C03: only these wells")
    parser.add_argument("--wells-per-plate", type=int, choices=PLATE_FORMATS, help="(default: the study's, or 384)")
    parser.add_argument(
        "--z", default="max", type=_axis, help="plane number from 0, max, mean, focus or each (default: max)"
    )
    parser.add_argument("--t", default="each", type=_axis, help="the same for time points (default: each)")
    parser.add_argument(
        "--level", default=0, type=_from_zero, help="resolution of an OME-Zarr, 0 is the finest (default: 0)"
    )
    parser.add_argument("--crop", type=_positive, help="side of an example in pixels (default: whole fields)")
    parser.add_argument("--overlap", default=0, type=int, help="pixels that neighboring tiles share (default: 0)")
    parser.add_argument("--random-crops", type=_positive, metavar="N", help="N windows at random instead of tiles")
    parser.add_argument("--objects", type=Path, help="table of plate, well, site, y, x: one example for each object")
    parser.add_argument("--label-mask", metavar="CHANNEL", help="channel that numbers objects: one example for each")
    parser.add_argument("--masks", help="bbbc010: folder, archive or URL of one mask per worm, or official")
    parser.add_argument("--points", type=_positive, metavar="P", help="shapes: points of an outline (default: 256)")
    parser.add_argument("--resampling", choices=METHODS, help="shapes: how they are placed (default: linear)")
    parser.add_argument(
        "--mask",
        choices=("binary", "grey", "labels"),
        help="shapes: one object of two levels or of grey in each image, or each value (default: the set's, or binary)",
    )
    parser.add_argument("--illumination", action="store_true", help="divide by each plate's own light")
    parser.add_argument("--seed", default=0, type=int, help="of random windows (default: 0)")
    parser.add_argument("--workers", default=os.cpu_count(), type=_positive, help="processes (default: all cores)")
    parser.add_argument(
        "--max-gb",
        type=_positive,
        metavar="N",
        help="memory that one file may take, whatever its size (default: by its size, 4 at most)",
    )
    parser.add_argument("--skip-bad", type=Path, metavar="FILE.csv", help="leave out what cannot be read, and list it")
    args = parser.parse_args([_with_hyphens(argument) for argument in arguments])

    typed = {argument.partition("=")[0][2:].replace("-", "_") for argument in arguments if argument.startswith("--")}
    for name in (args.name, args.set_name):
        if name is not None and not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            parser.error(f"the name {name!r}: expected small letters, digits and _, beginning with a letter")
    if args.name == "simulated" and typed - {"data_dir", "workers"}:
        parser.error(f"simulated takes no --{sorted(typed - {'data_dir', 'workers'})[0].replace('_', '-')}")
    try:
        for text in _TEXTS:
            if getattr(args, text) is not None:
                setattr(args, text, plain(getattr(args, text), f"--{text.replace('_', '-')}"))
    except BuildError as error:
        parser.error(str(error))
    if not 0 <= args.overlap < (args.crop or args.overlap + 1):
        parser.error(f"--overlap={args.overlap}: expected 0 to {(args.crop or 1) - 1}, less than --crop")
    if args.z == "each" and args.t in ("max", "mean", "focus"):
        parser.error(
            f"--z=each with --t={args.t}: focal planes can be kept apart only where time points are not projected"
        )
    if args.layout and args.pattern:
        parser.error(
            f"--layout={args.layout} and --pattern exclude each other: a pattern is a layout of its own, of the files "
            "below a folder; leave --layout out"
        )
    _check_kind(parser, args)
    if problem := problem_of_flags(typed, args.kind, _kind_of_source(args)):
        parser.error(problem)
    if args.set_name is None:
        # As images and as shapes they can lie side by side.
        args.set_name = f"{args.name}_shapes" if args.kind == "shapes" and args.name in IMAGE_SETS else args.name
    return args


def _kind_of_source(args: argparse.Namespace) -> str | None:
    """A set's own name, a layout or "pattern", as in `data.options`; None where it is not known yet."""
    if args.name in (*IMAGE_SETS, "osteosarcoma") and args.name not in STUDIES:
        return args.name
    if args.pattern is not None:
        return "pattern"
    if args.layout is not None or args.source is None:
        return args.layout
    study = STUDIES.get(args.name)
    return layout_of(args.source) or (None if study is None else study.layout or "pattern")


def _check_kind(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse outlines as images, and fill in the flags of shapes."""
    if args.kind == "shapes" and args.layout is args.pattern is None and is_of_contours(args.source):
        args.layout = "contours"
    of_contours = args.name == "osteosarcoma" or args.layout == "contours"
    if args.kind == "images":
        if of_contours:
            parser.error(f"{'--layout=contours' if args.layout else args.name} needs --kind=shapes: it has no pixels")
        return
    if args.points is not None and args.points < 3:
        parser.error(f"--points={args.points}: an outline has 3 points at least")
    args.points = args.points or 256
    args.resampling = args.resampling or "linear"
    args.mask = args.mask or ("grey" if args.name == "mnist" else "binary")


def _with_hyphens(argument: str) -> str:
    """--data_dir=x -> --data-dir=x: the flags of launch.py are written so."""
    flag, equals, value = argument.partition("=")
    return flag.replace("_", "-") + equals + value if flag.startswith("--") else argument


def _axis(text: str) -> AxisChoice:
    if text.isdecimal():
        return int(text)
    choices: dict[str, Literal["max", "mean", "focus", "each"]] = {c: c for c in ("max", "mean", "focus", "each")}
    if text not in choices:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number from 0, max, mean, focus or each")
    return choices[text]


def _from_zero(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1")
    return int(text)
