"""The simulated plates among the known sets."""

from pathlib import Path

from data.studies.simulated.build import VERSION, build_simulated
from data.studies.simulated.simulation import Design
from data.studies.study import Simulation


def build(data_dir: Path, num_workers: int) -> Path:
    """The screen as it is designed; returns the set's folder."""
    return build_simulated(data_dir, Design(), num_workers)


SIMULATED = Simulation(name="simulated", version=VERSION, kinds=("images",), build=build)
