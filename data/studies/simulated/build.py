"""Write the simulated plates as a set."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from data.records.description import Description, Example
from data.records.writer import write_set
from data.studies.simulated.simulation import CHANNEL_NAMES, PIXEL_SIZE_UM, Design, Well, layout, simulate_site

VERSION = "1.2.0"

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


@dataclasses.dataclass(frozen=True)
class SimulationMaker:
    """Draws the sites of a well; every one depends on the design's seed and its own place alone."""

    design: Design

    def identity(self, part: Well) -> str:
        """Everything that a well's images depend on."""
        return repr(part)

    def examples(self, part: Well) -> Iterator[Example]:
        """Every site of the well."""
        for site in range(self.design.sites):
            image, truth = simulate_site(self.design, part, site)
            yield (
                image,
                {
                    "plate": part.plate.name,
                    "well": part.name,
                    "site": site + 1,
                    "label": part.treatment,
                    "source": f"simulated/seed{self.design.seed}/{part.plate.name}/{part.name}/s{site + 1}",
                    "sirna": part.sirna,
                    "strength": part.strength,
                    **truth,
                },
            )


def build_simulated(data_dir: str | Path, design: Design, num_workers: int) -> Path:
    """Simulate and write every site of a design; the same design gives the same bytes.

    Returns:
        The set's folder.
    """
    description = Description(
        name="simulated",
        version=VERSION,
        kind="images",
        channel_names=CHANNEL_NAMES,
        pixel_size_um=PIXEL_SIZE_UM,
        image_shape=(design.image_size, design.image_size, len(CHANNEL_NAMES)),
        dtype="uint16",
        columns=_COLUMNS,
        text="SIMULATED plates in the manner of idr0093 (siRNA screen, five stains); no image here was ever taken.",
        simulated=True,
    )
    return write_set(
        description,
        layout(design),
        SimulationMaker(design),
        data_dir,
        num_workers=num_workers,
        examples_per_part=design.sites,
    )
