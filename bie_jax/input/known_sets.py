"""What a person types to get a set that is known by name, and what that takes; `data/studies/known.py` builds them.

Here and not there, as a run that lacks a set says it, and what trains knows nothing of what builds.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class HowToBuild:
    """One set.

    Attributes:
        command: that builds it.
        needs: what must be at hand.
    """

    command: str
    needs: str


HOW_TO_BUILD = {
    "simulated": HowToBuild("python -m data.build simulated", "half a minute, nothing else"),
    "bbbc010": HowToBuild(
        "python -m data.build bbbc010",
        "the network for 70 MB, or --source=FOLDER with the images (data/studies/bbbc010/README.md)",
    ),
    "bbbc010_shapes": HowToBuild(
        "python -m data.build bbbc010 --kind=shapes --masks=official",
        "the network for 2.7 MB, or --masks=FOLDER with a mask of each worm (data/studies/bbbc010/README.md)",
    ),
    "bbbc021": HowToBuild(
        "python -m data.build bbbc021 --source=FOLDER",
        "a folder with bbbc021_subset.npz and wells.csv (data/studies/bbbc021/README.md)",
    ),
    "mnist": HowToBuild(
        "python -m data.build mnist",
        "the network for 11.6 MB, or --source=FOLDER with them (data/studies/mnist/README.md)",
    ),
    "mnist_shapes": HowToBuild(
        "python -m data.build mnist --kind=shapes",
        "the network for 11.6 MB, or --source=FOLDER with them (data/studies/mnist/README.md)",
    ),
    "idr0006": HowToBuild(
        "python -m data.build idr0006 --source=FOLDER --annotation=idr0006-screenA-annotation.csv.gz",
        "the study's images and IDR's annotation table (data/studies/idr0006/README.md says how each is had)",
    ),
    "idr0035": HowToBuild(
        "python -m data.build idr0035 --source=FOLDER --annotation=idr0035-screenA-annotation.csv",
        "the study's images and IDR's annotation table (data/studies/idr0035/README.md says how each is had)",
    ),
    "idr0036": HowToBuild(
        "python -m data.build idr0036 --source=FOLDER --annotation=idr0036-screenA-library.txt.gz",
        "the study's images and its library table (data/studies/idr0036/README.md says how each is had)",
    ),
    "idr0093": HowToBuild(
        "python -m data.build idr0093 --source=FOLDER --annotation=idr0093-screenA-annotation.csv.gz",
        "the study's images (1.62 TB in all; a part of the plates will do) and IDR's annotation table "
        "(data/studies/idr0093/README.md says how each is had)",
    ),
    "idr0094": HowToBuild(
        "python -m data.build idr0094 --source=FOLDER --annotation=idr0094-screenA-annotation.csv.gz",
        "the study's images and IDR's annotation table (data/studies/idr0094/README.md says how each is had)",
    ),
    "osteosarcoma": HowToBuild(
        "python -m data.build osteosarcoma --kind=shapes --source=FOLDER",
        "a folder with cells.txt, cell_lines.txt and treatments.txt (data/studies/osteosarcoma/README.md)",
    ),
}


def how_to_build(name: str) -> HowToBuild:
    """Of any set; one that is not known by name holds images of the user's own."""
    own = HowToBuild(f"python -m data.build {name} --source=IMAGES", "images of any common kind (data/README.md)")
    return HOW_TO_BUILD.get(name, own)
