"""What is embedded of a set so far, on disk, for who goes on after a kill.

A part holds some rows and is written as every other file is, whole or not at all, with what it was made from. Parts lie
in a folder beside the table that they will become, and go when that is there.
"""

import dataclasses
import io
import shutil
import time
from pathlib import Path

import numpy as np
from jax.experimental import multihost_utils

from bie_jax.evaluation.embedding.code_use import CodeUse
from bie_jax.files import integrity
from bie_jax.files.integrity import MadeFrom
from bie_jax.training import processes

SECONDS = 30.0  # of work that a kill costs


@dataclasses.dataclass
class Parts:
    """The rows of one embedding, from the first one on.

    Attributes:
        folder: where parts lie.
        made_from: what the embedding is made from; parts of something else are put away.
    """

    folder: Path
    made_from: MadeFrom

    def __post_init__(self):
        self._written_at = time.monotonic()

    def read(self, features: np.ndarray) -> tuple[int, CodeUse | None]:
        """Fill in what is there; the same in all of several processes.

        Args:
            features: [N, D], whose first rows are written to.

        Returns:
            How many rows these are, and how often each code of a VQ-VAE occurs in them.
        """
        count = 0
        if processes.is_first():
            count = sum(stop - start for start, stop, _ in self._whole(features.shape))
            if count:
                print(f"going on: {count} of {len(features)} images are embedded already")
            elif self.folder.exists():
                print(f"{self.folder}: is of another network or of other images, and is not gone on with")
                self.remove()
        if processes.are_several():
            count = int(multihost_utils.broadcast_one_to_all(np.int32(count)))
        code_use = None
        for start, stop, path in self._whole(features.shape) if count else []:
            if start >= count:
                break
            with np.load(path, allow_pickle=False) as part:
                features[start:stop] = part["features"]
                if "counts" in part:
                    before = 0 if code_use is None else code_use.counts
                    code_use = CodeUse(before + part["counts"], int(part["positions"]))
        self._written_at = time.monotonic()
        return count, code_use

    def is_due(self) -> bool:
        """Whether what was done since the last part is worth one."""
        return time.monotonic() - self._written_at >= SECONDS

    def write(self, start: int, features: np.ndarray, code_use: CodeUse | None) -> None:
        """A part: rows [n, D] from `start` on, and how often each code occurs in them."""
        if processes.is_first() and len(features):
            content = io.BytesIO()
            codes = {} if code_use is None else {"counts": code_use.counts, "positions": code_use.positions}
            np.savez(content, features=features, **codes)
            path = self.folder / f"rows-{start:09d}-{start + len(features):09d}.npz"
            integrity.write_bytes(path, content.getvalue(), self.made_from)
        self._written_at = time.monotonic()

    def remove(self) -> None:
        """All that lies there."""
        if processes.is_first():
            shutil.rmtree(self.folder, ignore_errors=True)

    def _whole(self, shape: tuple[int, ...]) -> list[tuple[int, int, Path]]:
        """(first row, row behind the last, file) of parts that follow each other from row 0 on."""
        found, reached = [], 0
        for path in sorted(self.folder.glob("rows-*.npz")):
            start, stop = (int(number) for number in path.stem.split("-")[1:])
            try:
                integrity.verify(path, "", self.made_from)
            except (integrity.DamagedFileError, integrity.StaleFileError):
                break
            if start != reached or stop > shape[0]:
                break
            found.append((start, stop, path))
            reached = stop
        return found
