"""Every flag that a source does not know is refused, and none that it knows."""

import pytest

from data.command_line import parse
from data.flags import problem_of_flags
from data.options import ShapeOptions
from data.sources.source import LAYOUTS

SOURCES = (*LAYOUTS, "pattern", "bbbc010", "bbbc021", "mnist", "osteosarcoma")
NO_PIXELS = {"contours", "osteosarcoma"}
NAMED = {"bbbc010", "bbbc021", "mnist", "osteosarcoma"}
NO_STACKS = {"arrays", "tfds"} | NO_PIXELS | NAMED

# Flag -> kind of set, sources for which it means nothing, what must be with it.
FLAGS = {
    "layout": ("images", NAMED, ()),
    "pattern": ("images", NAMED, ()),
    "annotation": ("images", NAMED, ()),
    "wells_per_plate": ("images", NAMED | {"folder"}, ()),
    "sha256": ("images", {"mnist"}, ()),
    "channels": ("images", NO_PIXELS, ()),
    "z": ("images", NO_STACKS, ()),
    "t": ("images", NO_STACKS, ()),
    "level": ("images", set(SOURCES) - {"ome-zarr"}, ()),
    "masks": ("images", set(SOURCES) - {"bbbc010"}, ("crop",)),
    "mask": ("shapes", NO_PIXELS, ()),
    "crop": ("images", NO_PIXELS, ()),
    "overlap": ("images", NO_PIXELS, ("crop",)),
    "random_crops": ("images", NO_PIXELS, ("crop",)),
    "seed": ("images", NO_PIXELS, ("crop", "random_crops")),
    "objects": ("images", NO_PIXELS, ("crop",)),
    "label_mask": ("images", NO_PIXELS, ("crop",)),
    "illumination": ("images", NO_PIXELS, ()),
    "points": ("shapes", set(), ()),
    "resampling": ("shapes", set(), ()),
    **{name: ("images", set(), ()) for name in ("as", "kind", "data_dir", "source", "label", "plates", "wells")},
    **{name: ("images", set(), ()) for name in ("workers", "skip_bad", "max_gb", "part", "join")},
}


@pytest.mark.parametrize("name", FLAGS)
def test_every_flag_with_every_source(name):
    kind, strangers, needed = FLAGS[name]
    for source in SOURCES:
        problem = problem_of_flags({name, *needed}, kind, source)
        assert (problem is not None) == (source in strangers), (source, problem)
    for left in needed:
        assert "needs --" in problem_of_flags({name, *needed} - {left}, kind, None)


def test_the_table_has_every_flag(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"], "x")
    flags = {word.rstrip(",]") for word in capsys.readouterr().out.split() if word.startswith("--")}
    assert {flag[2:].replace("-", "_") for flag in flags if flag != "--help"} == FLAGS.keys()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--source=a.npy", "--level=1"], "--level means nothing for the layout arrays; it is for ome-zarr"),
        (["--source=a.npy", "--crop=8", "--seed=1"], "--seed needs --random-crops"),
        (["--source=a.npy", "--crop=8", "--masks=x"], "--masks means nothing for the layout arrays"),
        (["--source=a", "--layout=folder", "--pattern=x"], "a pattern is a layout of its own"),
        (["--source=a.zarr", "--crop=8", "--objects=a", "--label-mask=b"], "--objects and --label-mask"),
        (
            ["--source=a", "--layout=folder", "--wells-per-plate=96"],
            "--wells-per-plate means nothing for the layout folder",
        ),
        (["--source=a.csv", "--label=a\0b"], "--label: 'a\\x00b' has the control character U+0000"),
    ],
)
def test_in_one_line(arguments, problem, capsys):
    with pytest.raises(SystemExit):
        parse(["mine", *arguments], None)
    assert problem in capsys.readouterr().err.splitlines()[-1]


def test_a_study_takes_the_flags_of_its_layout(capsys):
    with pytest.raises(SystemExit):
        parse(["idr0093", "--source=x", "--level=1"], None)
    assert "--level means nothing for the layout cellvoyager" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "mask"), [(["mnist", "--source=x"], "grey"), (["bbbc010", "--masks=x"], "binary")]
)
def test_masks_of_known_sets_are_taken_as_they_are(arguments, mask):
    examples = parse([*arguments, "--kind=shapes"], None).examples
    assert isinstance(examples, ShapeOptions)
    assert (examples.mask, examples.points, examples.resampling) == (mask, 256, "linear")


def test_what_parts_of_a_set_agree_in():
    common = ["mine", "--source=a.csv", "--crop=8", "--illumination", "--z=0"]
    asked = parse(common, "x").asked()
    expected = {"NAME": "mine", "--source": "a.csv", "--crop": "8", "--illumination": "", "--z": "0", "--t": "each"}
    assert expected.items() <= asked.items()
    for own in ("--part=2/4", "--workers=3", "--max-gb=2", "--skip-bad=bad.csv", "--data-dir=x"):
        assert parse([*common, own], "x").asked() == asked
    for other in ("--crop=9", "--z=1", "--plates=a", "--annotation=b.csv", "--overlap=2", "--kind=shapes"):
        flags = [flag for flag in common if other != "--kind=shapes" or flag[:4] not in ("--cr", "--il")]
        assert parse([*flags, other], "x").asked() != asked
    assert "--illumination" not in parse(common[:3], "x").asked()
