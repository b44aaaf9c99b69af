"""The light of every plate of an index, estimated by as many processes as there are."""

import contextlib
import dataclasses
import os
from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.errors import BadInputError, BuildError, naming_skip_bad
from data.fields.illumination import FIELDS_PER_PLATE, Illumination, estimate_function
from data.fields.index import Field, Index, assemble
from data.fields.maker import FieldMaker
from data.records import workers


def estimate_illumination(
    index: Index, maker: FieldMaker, folder: Path, num_workers: int, skip_bad: bool, plates: Container[str], own: str
) -> Illumination:
    """The light of every plate, from its own fields; what an earlier call left in the folder is kept.

    Several processes may do so in one folder. A plate that two of them need has the light of the first to finish it.

    Args:
        index: all fields of the set.
        maker: what becomes of them.
        folder: of the unfinished set.
        num_workers: processes.
        skip_bad: whether fields that cannot be read are passed by.
        plates: whose light is needed now; that of others may not be there yet.
        own: in the names of the files that nobody else writes meanwhile; "" where nobody else is at work.

    Raises:
        BuildError: as `write_set`.
    """
    fields_of: dict[str, list[Field]] = {}
    for field in index.fields:
        fields_of.setdefault(field.plate, []).append(field)
    folder.mkdir(parents=True, exist_ok=True)
    functions = {plate: folder / f"illumination-{number:04d}.npy" for number, plate in enumerate(fields_of)}
    jobs = [
        _PlateLight(functions[plate], own, tuple(fields[:: -(-len(fields) // FIELDS_PER_PLATE)]), maker, skip_bad)
        for plate, fields in fields_of.items()
        if plate in plates and not functions[plate].exists()
    ]
    total = sum(plate in plates for plate in fields_of)
    bar = tqdm(total=total, initial=total - len(jobs), desc="illumination", unit="plate", disable=not total)
    with bar, naming_skip_bad(skip_bad):
        workers.run(_estimate_plate, jobs, num_workers, bar.update, isolated=skip_bad)
    return Illumination(functions)


@dataclasses.dataclass(frozen=True)
class _PlateLight:
    path: Path
    own: str
    fields: tuple[Field, ...]
    maker: FieldMaker
    skip_bad: bool

    @property
    def note(self) -> Path:
        """What its process is at."""
        return self.path.with_suffix(f"{self.own}.reading")

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

    partial = job.path.with_suffix(f"{job.own}.partial.npy")
    np.save(partial, estimate_function(images()))
    # Not replaced: another process may have corrected fields of the plate by it.
    with contextlib.suppress(FileExistsError):
        os.link(partial, job.path)
    partial.unlink()
    tick()
