"""What the part on treatments is made of."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
from PIL import Image

from bie_jax.config.schema import ProfileConfig
from bie_jax.evaluation.profiles.groups import group_rows
from bie_jax.evaluation.treatments.exemplars import Exemplar, exemplars
from bie_jax.evaluation.treatments.plan import TreatmentPlan
from bie_jax.evaluation.treatments.score import CorrectedWells, ScoredTreatments, TreatmentScores

MOST_WITH_IMAGES = 20  # treatments
IMAGES_OF_EACH = 3
TILE_PX = 88


@dataclasses.dataclass(frozen=True)
class TreatmentContent:
    """Treatments of a run as the report shows them.

    Attributes:
        profile: the group of the configuration.
        scores: `treatments` of `scores.json`.
        plan: of the set.
        corrected: wells and treatments of the embeddings.
        order: [T] treatments by activity, the most active first.
        exemplars: of the first treatments of `order`.
        tiles: row of the set -> its thumbnail, of all exemplars.
    """

    profile: ProfileConfig
    scores: TreatmentScores
    plan: TreatmentPlan
    corrected: CorrectedWells
    order: np.ndarray
    exemplars: list[list[Exemplar]]
    tiles: dict[int, Image.Image]

    @property
    def names(self) -> list[str]:
        """[T] what each treatment is called: the values of its columns."""
        values = self.plan.treatments[list(self.profile.treatment)].astype(str)
        return [", ".join(row) for row in values.to_numpy().tolist()]

    @property
    def activity(self) -> pd.DataFrame | None:
        """The activity of each treatment behind the last step: T rows, NaN where a treatment has none."""
        return activity_of_all(self.plan, self.corrected, self.profile)


def treatment_content(
    treatments: ScoredTreatments, profile: ProfileConfig, draw: Callable[[np.ndarray, int], list[Image.Image]]
) -> TreatmentContent:
    """What the report shows of scored treatments.

    Args:
        treatments: of the run.
        profile: the group of the configuration.
        draw: (rows of the set, most px a side) -> their thumbnails.
    """
    plan, corrected = treatments.plan, treatments.corrected
    order = order_by_activity(plan, corrected, profile)
    codes = np.full(len(plan.wells), -1, dtype=np.int64)
    treated = np.flatnonzero(plan.treated)
    codes[treated] = group_rows(plan.wells.iloc[treated], profile.treatment).codes
    wells, profiles = corrected.tables[-1].features, corrected.treatments.features
    found = [
        exemplars(wells, profiles[treatment], codes == treatment, plan, IMAGES_OF_EACH)
        for treatment in order[:MOST_WITH_IMAGES]
    ]
    rows = sorted({row for pairs in found for pair in pairs for row in pair if row >= 0})
    tiles = dict(zip(rows, draw(np.array(rows, dtype=np.int64), TILE_PX)))
    return TreatmentContent(profile, treatments.scores, plan, corrected, order, found, tiles)


def activity_of_all(plan: TreatmentPlan, corrected: CorrectedWells, profile: ProfileConfig) -> pd.DataFrame | None:
    """The table of activity behind the last step with a row for every treatment, in the order of the plan's."""
    table = corrected.tables[-1].measured.activity
    if table is None:
        return None
    columns = list(profile.treatment)
    return plan.treatments[columns].merge(table, on=columns, how="left")


def order_by_activity(plan: TreatmentPlan, corrected: CorrectedWells, profile: ProfileConfig) -> np.ndarray:
    """[T] by falling mean average precision, those without one last; the plan's order where activity is not scored."""
    activity = activity_of_all(plan, corrected, profile)
    if activity is None:
        return np.arange(len(plan.treatments))
    return np.argsort(-activity["mean_average_precision"].fillna(-1).to_numpy(), kind="stable")
