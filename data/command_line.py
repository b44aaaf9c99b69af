"""What may be typed after `python -m data.build`, and what it means: one frozen `Options`."""

import argparse
import os
import re
from pathlib import Path
from typing import Literal

from bie_jax.shapes.resample import METHODS
from data.errors import BuildError
from data.fields.index import AxisChoice
from data.flags import problem_of_flags
from data.options import FieldOptions, ImageOptions, Options, PlaneOptions, ShapeOptions
from data.records.share import Share
from data.sources.contours import is_of_contours
from data.sources.source import LAYOUTS, layout_of
from data.studies.known import STUDIES
from data.studies.study import Simulation, Study, readme, set_name
from data.text import plain
from data.wells import PLATE_FORMATS

_TEXTS = ("plates", "wells", "channels", "label", "label_mask")  # flags that name what a source has
_OF_SIMULATIONS = {"data_dir", "workers"}  # the flags that they take


def parse(arguments: list[str], description: str | None) -> Options:
    """What is asked for; flags that are not possible together are refused: exit status 2 and one line on stderr.

    Args:
        arguments: as typed after `python -m data.build`.
        description: of the command, for --help.
    """
    parser = _parser(description)
    try:
        return _options(parser, arguments)
    except BuildError as error:
        parser.error(str(error))


def options_of(arguments: list[str]) -> Options:
    """What arguments ask for that a program has put together; raises BuildError for values that cannot be."""
    return _options(_parser(None), arguments)


def _options(parser: argparse.ArgumentParser, arguments: list[str]) -> Options:
    args = parser.parse_args([_with_hyphens(argument) for argument in arguments])
    typed = {argument.partition("=")[0][2:].replace("-", "_") for argument in arguments if argument.startswith("--")}
    return _checked(args, typed)


def _parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data.build",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", help=f"of the set: {', '.join(STUDIES)}, or a name of yours for images of yours")
    parser.add_argument("--kind", choices=("images", "shapes"), default="images", help="(default: images)")
    parser.add_argument("--as", dest="set_name", metavar="NAME", help="what the set is called instead")
    parser.add_argument("--data-dir", default="datasets", type=_folder, help="folder of built sets (default: datasets)")
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
    parser.add_argument(
        "--part",
        type=_share,
        metavar="K/N",
        help="make the K-th of N parts, K from 1; see --join",
    )
    parser.add_argument("--join", action="store_true", help="make no part, join those that were made to the set")
    return parser


def _checked(args: argparse.Namespace, typed: set[str]) -> Options:
    """The options that flags mean; raises BuildError for flags that mean nothing, or not together."""
    study = STUDIES.get(args.name)
    for name in (args.name, args.set_name):
        if name is not None and not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise BuildError(f"the name {name!r}: expected small letters, digits and _, beginning with a letter")
    if isinstance(study, Simulation) and typed - _OF_SIMULATIONS:
        raise BuildError(f"{study.name} takes no --{sorted(typed - _OF_SIMULATIONS)[0].replace('_', '-')}")
    if args.part and args.join:
        raise BuildError(f"--part={args.part} and --join exclude each other: all parts first, then --join by itself")
    texts = {
        text: None if getattr(args, text) is None else plain(getattr(args, text), f"--{text.replace('_', '-')}")
        for text in _TEXTS
    }
    if not 0 <= args.overlap < (args.crop or args.overlap + 1):
        raise BuildError(f"--overlap={args.overlap}: expected 0 to {(args.crop or 1) - 1}, less than --crop")
    if args.z == "each" and args.t in ("max", "mean", "focus"):
        raise BuildError(
            f"--z=each with --t={args.t}: focal planes can be kept apart only where time points are not projected"
        )
    if args.layout and args.pattern:
        raise BuildError(
            f"--layout={args.layout} and --pattern exclude each other: a pattern is a layout of its own, of the files "
            "below a folder; leave --layout out"
        )
    layout = args.layout
    if args.kind == "shapes" and layout is args.pattern is None and is_of_contours(args.source):
        layout = "contours"
    if args.kind == "images" and layout == "contours":
        raise BuildError("--layout=contours needs --kind=shapes: it has no pixels")
    if args.kind == "images" and study is not None and args.kind not in study.kinds:
        raise BuildError(f"{study.name} needs --kind={study.kinds[0]}: it has no pixels")
    if args.kind == "shapes" and args.points is not None and args.points < 3:
        raise BuildError(f"--points={args.points}: an outline has 3 points at least")
    if problem := problem_of_flags(typed, args.kind, _kind_of_source(study, args.source, layout, args.pattern)):
        raise BuildError(problem)
    fields = FieldOptions(
        name=args.name,
        kind=args.kind,
        source=args.source,
        readme="data/README.md" if study is None else readme(study),
        sha256=args.sha256,
        layout=layout,
        pattern=args.pattern,
        annotation=args.annotation,
        label=texts["label"] or "",
        wells_per_plate=args.wells_per_plate,
        level=args.level,
        masks=args.masks,
        plates=texts["plates"],
        wells=texts["wells"],
        leave_out=args.skip_bad is not None,
        downloads=args.data_dir / "downloads",
    )
    if args.kind == "shapes":
        mask = args.mask or (study.mask if isinstance(study, Study) else "binary")
        examples = ShapeOptions(args.points or 256, args.resampling or "linear", mask)
    else:
        examples = ImageOptions(
            crop=args.crop,
            overlap=args.overlap,
            random_crops=args.random_crops,
            seed=args.seed,
            objects=args.objects,
            label_mask=texts["label_mask"],
            illumination=args.illumination,
        )
    return Options(
        set_name=args.set_name or (args.name if study is None else set_name(study, args.kind)),
        data_dir=args.data_dir,
        workers=args.workers,
        max_gb=args.max_gb,
        skip_bad=args.skip_bad,
        work="none" if args.join else args.part or "all",
        fields=fields,
        planes=PlaneOptions(texts["channels"], args.z, args.t),
        examples=examples,
    )


def _kind_of_source(
    study: Study | Simulation | None, source: str | None, layout: str | None, pattern: str | None
) -> str | None:
    """A layout, "pattern", or the name of a set with flags of its own, as in `data.flags`; None: not known yet."""
    if isinstance(study, Study) and study.layout is None:
        return study.name
    if pattern is not None:
        return "pattern"
    if layout is not None or source is None:
        return layout
    return layout_of(source) or (study.layout if isinstance(study, Study) else None)


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


def _folder(text: str) -> Path:
    if "://" in text:
        raise argparse.ArgumentTypeError(
            f"{text}: a set is written to a folder, not to an address; mount it, or copy later"
        )
    return Path(text)


def _from_zero(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 0")
    return int(text)


def _share(text: str) -> Share:
    parts = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
    if parts is None or not 1 <= int(parts[1]) <= int(parts[2]):
        raise argparse.ArgumentTypeError(f"{text!r}: expected K/N with K from 1 to N, such as 2/4")
    return Share(int(parts[1]), int(parts[2]))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1")
    return int(text)
