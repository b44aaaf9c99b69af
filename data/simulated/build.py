"""Write the simulated plates as a set."""

from collections.abc import Iterator
from pathlib import Path

from data.records import Description, Example, write_set
from data.simulated.simulation import CHANNEL_NAMES, PIXEL_SIZE_UM, Design, layout, simulate_site

VERSION = "1.0.0"

_COLUMNS = {
    "plate": str,
    "well": str,
    "site": int,
    "label": str,
    "source": str,
    "sirna": str,
    "strength": float,
    "n_cells": int,
    "n_nuclei": int,
    "multinucleate_fraction": float,
    "s_phase_fraction": float,
    "mitotic_fraction": float,
    "nuclear_radius_um": float,
    "cell_radius_um": float,
}


def build_simulated(data_dir: str | Path, design: Design) -> Path:
    """Simulate and write every site of a design; the same design gives the same bytes.

    Returns:
        The set's folder.
    """
    description = Description(
        name="simulated",
        version=VERSION,
        channel_names=CHANNEL_NAMES,
        pixel_size_um=PIXEL_SIZE_UM,
        bit_depth=16,
        image_shape=(design.image_size, design.image_size, len(CHANNEL_NAMES)),
        dtype="uint16",
        columns=_COLUMNS,
        num_examples=design.images,
        text="SIMULATED plates in the manner of idr0093 (siRNA screen, five stains); no image here was ever taken.",
        simulated=True,
    )
    return write_set(description, _examples(design), data_dir)


def _examples(design: Design) -> Iterator[Example]:
    for well in layout(design):
        for site in range(design.sites):
            image, truth = simulate_site(design, well, site)
            yield (
                image,
                {
                    "plate": well.plate.name,
                    "well": well.name,
                    "site": site + 1,
                    "label": well.treatment,
                    "source": f"simulated/seed{design.seed}/{well.plate.name}/{well.name}/s{site + 1}",
                    "sirna": well.sirna,
                    "strength": well.strength,
                    **truth,
                },
            )
