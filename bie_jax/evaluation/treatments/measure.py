"""The scores of one table of wells: a function for each kind, each beside what chance would give."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from bie_jax.config.schema import EvalConfig
from bie_jax.evaluation.profiles.activity import activity_average_precision
from bie_jax.evaluation.profiles.aggregate import Profiles, aggregate
from bie_jax.evaluation.profiles.consistency import consistency_average_precision
from bie_jax.evaluation.profiles.groups import group_rows
from bie_jax.evaluation.profiles.mean_average_precision import mean_average_precision
from bie_jax.evaluation.profiles.nearest_mechanism import NearestMechanism, nearest_mechanism
from bie_jax.evaluation.profiles.random_order import RandomOrder, draw_random_orders
from bie_jax.evaluation.profiles.replicating import percent_replicating
from bie_jax.evaluation.profiles.separability import batch_separability
from bie_jax.evaluation.scores.keys import (
    ACCURACY,
    ACTIVITY,
    BATCH_SEPARABILITY,
    CONSISTENCY,
    CORRELATION,
    COSINE,
    MEAN_AVERAGE_PRECISION,
    NOT_SAME_COMPOUND,
    NOT_SAME_COMPOUND_OR_BATCH,
    PLATE_SEPARABILITY,
    REPLICATING,
    SHARE_REPLICATING,
    SHARE_SIGNIFICANT,
    TREATMENT,
    WELL,
)
from bie_jax.evaluation.treatments.interval import interval_of_mean
from bie_jax.evaluation.treatments.plan import LEAST_CONTROLS_OF_A_PLATE, TreatmentPlan

SIGNIFICANT = 0.05  # q-values below it
REPLICATING_QUANTILE = 0.95  # of the null, as Way et al. 2022 have it


class Measure(NamedTuple):
    """One number of one table of wells.

    Attributes:
        level: `WELL` or `TREATMENT`, what a row of features was.
        score, by, metric: as in `scores.keys`.
        value: of the metric.
        chance: what it would be if profiles said nothing.
        n: profiles or treatments that it is the mean of.
        low, high: ends of the 95 % interval over these; None where there is none.
    """

    level: str
    score: str
    by: str
    metric: str
    value: float
    chance: float
    n: int
    low: float | None
    high: float | None


@dataclasses.dataclass
class Nulls:
    """Random orders of each kind of score: drawn once, for they depend on who is compared with whom alone."""

    orders: dict[str, RandomOrder] = dataclasses.field(default_factory=dict)

    def of(self, score: str, average_precisions: pd.DataFrame, settings: EvalConfig) -> RandomOrder:
        """That of a kind of score."""
        if score not in self.orders:
            size, seed = settings.profile.null_size, settings.seed
            self.orders[score] = draw_random_orders(average_precisions, size, seed, "choose")
        return self.orders[score]


class Measured(NamedTuple):
    """The scores of one table of wells.

    Attributes:
        measures: all numbers that can be had.
        activity: one row a treatment, as `mean_average_precision`; None where it cannot be scored.
        notes: why some cannot be had.
    """

    measures: list[Measure]
    activity: pd.DataFrame | None
    notes: list[str]


def measure(features: np.ndarray, plan: TreatmentPlan, settings: EvalConfig, nulls: Nulls) -> Measured:
    """All scores of treatments that a set can give; how far plates can be told is in `separability`.

    Args:
        features: [W, D] finite, of the plan's wells.
        plan: of the set.
        settings: the `eval` group of a configuration.
        nulls: of this plan; what is missing is drawn.
    """
    single = features.shape[1] == 1
    features = comparable(features)
    kinds: list[Callable[[np.ndarray, TreatmentPlan, EvalConfig, Nulls], Iterator[Measure]]] = [
        _consistency,
        _not_same_compound,
        _not_same_compound_or_batch,
    ]
    if not single:
        kinds.append(_replicating)  # a correlation of two numbers is 1 or -1
    measures, notes, activity = [], [], None
    try:
        activity, found = _activity(features, plan, settings, nulls)
        measures += found
    except ValueError as error:
        notes.append(f"activity: {error}")
    for kind in kinds:
        try:
            measures += kind(features, plan, settings, nulls)
        except ValueError as error:
            notes.append(f"{kind.__name__.strip('_').replace('_', ' ')}: {error}")
    return Measured(measures, activity, notes)


def comparable(features: np.ndarray) -> np.ndarray:
    """Features [W, D]; beside a single one, such as a count of cells, a constant 1, so that profiles of about the same
    value are the most similar ones by cosine: alone all would be 1 or -1."""
    return np.concatenate([features, np.ones_like(features)], axis=1) if features.shape[1] == 1 else features


def treatment_profiles(features: np.ndarray, plan: TreatmentPlan, settings: EvalConfig) -> Profiles:
    """[T, D'] of the plan's treatments, in its order."""
    profile = settings.profile
    rows = np.flatnonzero(plan.treated)
    keep = [name for name in plan.treatments.columns if name not in (*profile.treatment, "wells")]
    return aggregate(features[rows], plan.wells.iloc[rows], profile.treatment, keep, profile.treatment_statistic)


def _activity(
    features: np.ndarray, plan: TreatmentPlan, settings: EvalConfig, nulls: Nulls
) -> tuple[pd.DataFrame | None, list[Measure]]:
    """Are replicates nearer to each other than to controls of their plate?"""
    profile = settings.profile
    if not plan.controls.any():
        return None, []
    rows = np.flatnonzero((plan.treated | plan.controls) & plan.with_controls)
    wells = plan.wells.iloc[rows].reset_index(drop=True)
    scores = activity_average_precision(
        features[rows], wells, profile.treatment, plan.controls[rows], ("plate",), profile.replicates_differ_in
    )
    table = mean_average_precision(
        scores, wells, profile.treatment, nulls.of(ACTIVITY, scores, settings), count_ties=True
    )
    return table, list(_of_groups(WELL, ACTIVITY, table, settings))


def _consistency(features: np.ndarray, plan: TreatmentPlan, settings: EvalConfig, nulls: Nulls) -> Iterator[Measure]:
    """Are treatments of one mechanism nearer to each other than to all others?"""
    mechanism = settings.profile.mechanism
    if not mechanism:
        return
    profiles, table = _profiles_of_known_mechanism(features, plan, settings)
    queries = drawn_queries(table, mechanism, settings)
    across = _other_compound(settings) if settings.profile.compound else ()
    scores = consistency_average_precision(profiles, table, mechanism, across, queries)
    null = nulls.of(CONSISTENCY, scores, settings)
    means = mean_average_precision(scores, table, (mechanism,), null, count_ties=True)
    yield from _of_groups(TREATMENT, CONSISTENCY, means, settings)


def _not_same_compound(
    features: np.ndarray, plan: TreatmentPlan, settings: EvalConfig, nulls: Nulls
) -> Iterator[Measure]:
    """Is the nearest treatment, of another compound, of the same mechanism?"""
    mechanism = settings.profile.mechanism
    if not mechanism:
        return
    profiles, table = _profiles_of_known_mechanism(features, plan, settings)
    across = _other_compound(settings)
    found = nearest_mechanism(profiles, _with_treatment(table, settings), mechanism, across)
    yield _share(TREATMENT, NOT_SAME_COMPOUND, found, settings)


def _not_same_compound_or_batch(
    features: np.ndarray, plan: TreatmentPlan, settings: EvalConfig, nulls: Nulls
) -> Iterator[Measure]:
    """The same of the treatments of each batch, among those of other batches."""
    profile = settings.profile
    if not profile.mechanism or not profile.batch:
        return
    treated = np.flatnonzero(plan.treated)
    rows = treated[_of_known_mechanism(plan.wells.iloc[treated], profile.mechanism)]
    wells = _with_treatment(plan.wells.iloc[rows].reset_index(drop=True), settings)
    wells["batch of it"] = group_rows(wells, profile.batch).codes
    across = (*_other_compound(settings), "batch of it")
    keep = (profile.mechanism, *across)
    by = (*profile.treatment, "batch of it")
    profiles = aggregate(features[rows], wells, by, keep, profile.treatment_statistic)
    if profiles.metadata["batch of it"].nunique() < 2:
        return
    found = nearest_mechanism(profiles.features, profiles.metadata, profile.mechanism, across)
    yield _share(TREATMENT, NOT_SAME_COMPOUND_OR_BATCH, found, settings)


def _replicating(features: np.ndarray, plan: TreatmentPlan, settings: EvalConfig, nulls: Nulls) -> Iterator[Measure]:
    """Do replicates resemble each other more than wells of as many treatments do?"""
    rows = np.flatnonzero(plan.treated)
    found = percent_replicating(
        features[rows],
        plan.wells.iloc[rows].reset_index(drop=True),
        settings.profile.treatment,
        REPLICATING_QUANTILE,
        settings.profile.null_size,
        settings.seed,
    )
    above = (found.table["median_correlation"] > found.table["threshold"]).to_numpy(dtype=np.float64)
    low, high = interval_of_mean(above, settings.bootstrap, settings.seed)
    yield Measure(WELL, REPLICATING, CORRELATION, SHARE_REPLICATING, found.share, found.chance, len(above), low, high)


def control_halves(plan: TreatmentPlan) -> list[np.ndarray]:
    """Two halves [W] bool of the control wells, every second one of each plate in each; none where a plate that has
    controls has fewer than four, so that a half could not tell its plate."""
    rows = np.flatnonzero(plan.controls)
    if not len(rows):
        return []
    plates = group_rows(plan.wells.iloc[rows], ("plate",))
    if np.bincount(plates.codes).min() < LEAST_CONTROLS_OF_A_PLATE:
        return []
    first = np.zeros(len(plan.wells), dtype=bool)
    for members in plates.rows():
        first[rows[members[::2]]] = True
    return [first, plan.controls & ~first]


def separability(
    of_halves: Sequence[tuple[np.ndarray, np.ndarray]], plan: TreatmentPlan, settings: EvalConfig
) -> list[Measure]:
    """Can plate and batch be told by the neighbors of control wells that no step was fitted to?

    Controls that a plate was centered on sum to 0 there, and look less like their own plate than chance: so the steps
    are fitted to one half of the controls, and the other half is asked.

    Args:
        of_halves: (features [W, D] behind steps that were fitted to one half of the controls, [W] bool of the other).
        plan: of the set.
        settings: the `eval` group of a configuration.
    """
    batch = settings.profile.batch
    scores = {PLATE_SEPARABILITY: ("plate",)} | ({BATCH_SEPARABILITY: batch} if batch not in ((), ("plate",)) else {})
    measures = []
    for score, columns in scores.items():
        if len(group_rows(plan.wells.iloc[np.flatnonzero(plan.controls)], columns).names) < 2:
            continue
        found = [batch_separability(features, plan.wells, columns, asked) for features, asked in of_halves]
        correct = np.concatenate([half.correct[~np.isnan(half.correct)] for half in found])
        low, high = interval_of_mean(correct, settings.bootstrap, settings.seed)
        chance = float(np.average([half.chance for half in found], weights=[half.treatments for half in found]))
        measures.append(Measure(WELL, score, COSINE, ACCURACY, float(correct.mean()), chance, len(correct), low, high))
    return measures


def drawn_queries(table: pd.DataFrame, mechanism: str, settings: EvalConfig) -> np.ndarray:
    """[T] bool, the treatments that are asked for their neighbors: all, or of many so many whole mechanisms as hold
    `config.eval.most_queries` of them, drawn without looking at features."""
    most = settings.most_queries
    if len(table) <= most:
        return np.ones(len(table), dtype=bool)
    codes = group_rows(table, (mechanism,)).codes
    order = np.random.default_rng(settings.seed).permutation(codes.max() + 1)
    sizes = np.bincount(codes)[order]
    return np.isin(codes, order[: max(1, int(np.searchsorted(np.cumsum(sizes), most, side="right")))])


def _profiles_of_known_mechanism(
    features: np.ndarray, plan: TreatmentPlan, settings: EvalConfig
) -> tuple[np.ndarray, pd.DataFrame]:
    """Of the treatments whose mechanism is known: their profiles, and what is known of them."""
    profiles = treatment_profiles(features, plan, settings)
    known = _of_known_mechanism(profiles.metadata, settings.profile.mechanism)
    return profiles.features[known], profiles.metadata.iloc[known].reset_index(drop=True)


def _of_known_mechanism(table: pd.DataFrame, mechanism: str) -> np.ndarray:
    """Rows that have a mechanism: text that is not empty, or a number."""
    known = np.flatnonzero(((table[mechanism] != "") & table[mechanism].notna()).to_numpy())
    if not len(known):
        raise ValueError(f"no treatment has a value of {mechanism} (config.eval.profile.mechanism)")
    return known


def _other_compound(settings: EvalConfig) -> tuple[str, ...]:
    return (settings.profile.compound,) if settings.profile.compound else ("treatment of it",)


def _with_treatment(table: pd.DataFrame, settings: EvalConfig) -> pd.DataFrame:
    """The table with a number for each treatment, in which two must differ where no compound is named."""
    return table.assign(**{"treatment of it": group_rows(table, settings.profile.treatment).codes})


def _of_groups(level: str, score: str, table: pd.DataFrame, settings: EvalConfig) -> Iterator[Measure]:
    """The mean over treatments, or mechanisms, and how many of them are significant."""
    values = table["mean_average_precision"].to_numpy()
    low, high = interval_of_mean(values, settings.bootstrap, settings.seed)
    chance = float(table["expected_average_precision"].mean())
    yield Measure(level, score, COSINE, MEAN_AVERAGE_PRECISION, float(values.mean()), chance, len(values), low, high)
    significant = (table["corrected_p_value"] < SIGNIFICANT).to_numpy(dtype=np.float64)
    low, high = interval_of_mean(significant, settings.bootstrap, settings.seed)
    yield Measure(level, score, COSINE, SHARE_SIGNIFICANT, float(significant.mean()), 0.0, len(values), low, high)


def _share(level: str, score: str, found: NearestMechanism, settings: EvalConfig) -> Measure:
    correct = found.correct[~np.isnan(found.correct)]
    low, high = interval_of_mean(correct, settings.bootstrap, settings.seed)
    return Measure(level, score, COSINE, ACCURACY, found.accuracy, found.chance, found.treatments, low, high)
