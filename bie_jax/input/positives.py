"""Which other image is shown beside an image as its second view: biology's own augmentation.

Two sites of a well, or two replicates of a treatment, differ as two views of one image do, and by what cells do beside.
Treatments are labels, if weak ones: the report says that the column taught the encoder.
"""

import numpy as np
import pandas as pd

from bie_jax.config.schema import DataConfig
from bie_jax.input.wells import names_of_wells


def teaching_column(data: DataConfig) -> str | None:
    """The column whose equal values are each other's second views; None: no column is asked."""
    return data.treatment if data.positives == "treatment" else None


def build_positives(data: DataConfig, metadata: pd.DataFrame, train_rows: np.ndarray) -> "Positives | None":
    """As `data.positives` has it; None where an image is its own second view.

    Args:
        data: the checked `data` group.
        metadata: of N images.
        train_rows: those that are trained on; no other is ever shown.
    """
    if data.positives == "same_image":
        return None
    return Positives(metadata, train_rows, teaching_column(data))


class Positives:
    """Draws a partner for every image.

    Args:
        metadata: of N images, with `plate`, `well`, `site`, `source`, `set`.
        train_rows: see `build_positives`.
        treatment: column. A partner has the same treatment and stands on another plate, or in another well where there
            is no other plate; an image without a treatment, or alone with it, is its own. None: a partner is another
            image of the same well.
    """

    def __init__(self, metadata: pd.DataFrame, train_rows: np.ndarray, treatment: str | None):
        sets, wells = metadata["set"].astype(str), names_of_wells(metadata)
        known = pd.Series(True, metadata.index) if treatment is None else metadata[treatment].fillna("") != ""
        groups = wells if treatment is None else metadata[treatment].astype(str)
        self._group = np.where(known, pd.factorize(sets + "\x1f" + groups)[0], -1)
        self._plate, self._well = (pd.factorize(names)[0] for names in (metadata["plate"], wells))
        self._other_well_at_least = treatment is not None
        order = np.asarray(train_rows)[np.argsort(self._group[train_rows], kind="stable")]
        numbers, starts = np.unique(self._group[order], return_index=True)
        self._members = dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True))

    def candidates(self, row: int) -> np.ndarray:
        """Rows of all partners that a row may get; itself where it has none."""
        group = int(self._group[row])
        if group < 0 or group not in self._members:
            return np.asarray([row])
        members = self._members[group]
        if not self._other_well_at_least:
            others = members[members != row]
        else:
            others = members[self._plate[members] != self._plate[row]]
            others = others if len(others) else members[self._well[members] != self._well[row]]
        return others if len(others) else np.asarray([row])

    def draw(self, row: int, rng: np.random.Generator) -> int:
        """One of the candidates, each as likely as the others."""
        candidates = self.candidates(row)
        return int(candidates[rng.integers(len(candidates))])

    def describe(self, rows: np.ndarray) -> str:
        """How many of the images have a partner, in a line."""
        alone = sum(len(found := self.candidates(int(row))) == 1 and found[0] == row for row in rows)
        plates = sum(bool((self._plate[self.candidates(int(row))] != self._plate[row]).any()) for row in rows)
        of_plates = f", {plates} of them on another plate" if self._other_well_at_least else ""
        return f"second views: {len(rows) - alone} of {len(rows)} images have another one{of_plates}"
