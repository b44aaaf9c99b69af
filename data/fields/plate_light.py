"""The light of every plate of an index, estimated by as many processes as there are."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.errors import BadInputError, BuildError, naming_skip_bad
from data.fields.illumination import FIELDS_PER_PLATE, Illumination, estimate_function
from data.fields.index import Field, Index, assemble
from data.fields.maker import FieldMaker
from data.records import workers


def estimate_illumination(
    index: Index, maker: FieldMaker, folder: Path, num_workers: int, skip_bad: bool
) -> Illumination:
    """The light of every plate, from its own fields; what an earlier call left in the folder is kept.

    Raises:
        BuildError: as `write_set`.
    """
    plates: dict[str, list[Field]] = {}
    for field in index.fields:
        plates.setdefault(field.plate, []).append(field)
    folder.mkdir(parents=True, exist_ok=True)
    functions = {plate: folder / f"illumination-{number:04d}.npy" for number, plate in enumerate(plates)}
    jobs = [
        _PlateLight(functions[plate], tuple(fields[:: -(-len(fields) // FIELDS_PER_PLATE)]), maker, skip_bad)
        for plate, fields in plates.items()
        if not functions[plate].exists()
    ]
    bar = tqdm(total=len(plates), initial=len(plates) - len(jobs), desc="illumination", unit="plate")
    with bar, naming_skip_bad(skip_bad):
        workers.run(_estimate_plate, jobs, num_workers, bar.update, isolated=skip_bad)
    return Illumination(functions)


@dataclasses.dataclass(frozen=True)
class _PlateLight:
    path: Path
    fields: tuple[Field, ...]
    maker: FieldMaker
    skip_bad: bool

    @property
    def note(self) -> Path:
        """What its process is at."""
        return self.path.with_suffix(".reading")

    def without(self, number: int, source: str, problem: str) -> "_PlateLight":
        """The same without a field of which a reader dies; raises BuildError if nothing may be left out."""
        field = self.fields[number]
        if not self.skip_bad:
            raise BuildError(f"{source or field.source}: {problem} ({field}); --skip-bad=FILE.csv leaves it out")
        return dataclasses.replace(self, fields=(*self.fields[:number], *self.fields[number + 1 :]))


def _estimate_plate(job: _PlateLight, tick: workers.Tick) -> None:
    def images() -> Iterator[np.ndarray]:
        for number, field in enumerate(job.fields):
            try:
                with workers.noted(job.note, number):
                    for image, _ in assemble(field, job.maker.channels, job.maker.z, job.maker.t):
                        yield image
            except BadInputError:
                if not job.skip_bad:
                    raise

    partial = job.path.with_suffix(".partial.npy")
    np.save(partial, estimate_function(images()))
    partial.replace(job.path)
    tick()
