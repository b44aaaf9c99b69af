"""Treatments of all sets of features, before and after every step that corrects their wells."""

import dataclasses
from collections.abc import Iterator
from typing import TypedDict

import numpy as np
import pandas as pd
from tqdm import tqdm

from bie_jax.config.schema import EvalConfig
from bie_jax.evaluation.feature_set import FeatureSet, Reduction
from bie_jax.evaluation.profiles.aggregate import Profiles, aggregate
from bie_jax.evaluation.profiles.correct import Step, fit_correction
from bie_jax.evaluation.scores.keys import CHANCE
from bie_jax.evaluation.scores.preparation import build_preparation
from bie_jax.evaluation.scores.rows import Row, ScoreRow, score_row
from bie_jax.evaluation.treatments.measure import (
    Measured,
    Nulls,
    comparable,
    control_halves,
    measure,
    separability,
    treatment_profiles,
)
from bie_jax.evaluation.treatments.plan import TreatmentPlan

WELLS = "wells"  # profiles as they are aggregated, before any step
_MOST_FITTED = 20_000  # images that principal components of wide features are fitted to


class TreatmentResult(TypedDict):
    """One number of one set of features behind some steps; `of_draws` where weights were random, once for each seed.

    `low` and `high` are the 95 % interval over treatments, or wells; of several draws the mean of theirs.
    """

    feature_set: str
    title: str
    steps: str
    dim: int
    level: str
    score: str
    by: str
    metric: str
    value: float
    of_draws: list[float]
    chance: float
    n: int
    low: float | None
    high: float | None


class TreatmentScores(TypedDict):
    """What stands under `treatments` in `scores.json`."""

    treatment: list[str]
    mechanism: str
    wells: int
    controls: int
    treatments: int
    steps: list[str]
    results: list[TreatmentResult]
    notes: list[str]


@dataclasses.dataclass(frozen=True)
class WellTable:
    """Wells of one set of features behind some steps.

    Attributes:
        steps: "wells", and behind it the names of the steps, joined by "+".
        features: [W, D] float64.
        columns: [D] int64, which feature each column is; None: columns mix features.
        measured: their scores.
    """

    steps: str
    features: np.ndarray
    columns: np.ndarray | None
    measured: Measured


@dataclasses.dataclass(frozen=True)
class CorrectedWells:
    """The wells of the embeddings, as far as all steps could be made.

    Attributes:
        tables: before any step, and behind each.
        treatments: [T, D], of the last table.
    """

    tables: list[WellTable]
    treatments: Profiles


@dataclasses.dataclass(frozen=True)
class ScoredTreatments:
    """Wells and treatments of a set, the scores of all sets of features, and the profiles of the embeddings."""

    plan: TreatmentPlan
    scores: TreatmentScores
    corrected: CorrectedWells


def score_treatments(feature_sets: list[FeatureSet], plan: TreatmentPlan, settings: EvalConfig) -> ScoredTreatments:
    """All scores of the treatments of all sets of features, the same steps for all.

    Args:
        feature_sets: of N images, the embeddings first.
        plan: of these images.
        settings: the `eval` group of a configuration.
    """
    nulls, results, notes = Nulls(), [], list(plan.notes)
    corrected = None
    steps = ["+".join((WELLS, *settings.profile.steps[:count])) for count in range(len(settings.profile.steps) + 1)]
    total = len(steps) * sum(len(feature_set.draws) for feature_set in feature_sets)
    with tqdm(total=total, desc="treatments", unit="table") as bar:
        for feature_set in feature_sets:
            draws = []
            for draw in feature_set.draws:
                said: list[str] = []
                tables = []
                for table in _tables(draw, feature_set.components, plan, settings, nulls, said):
                    tables.append(table)
                    bar.update()
                notes += [f"{feature_set.title}, {note}" for note in said if note not in notes]
                draws.append(tables)
            if corrected is None:
                last = draws[0][-1].features
                corrected = CorrectedWells(draws[0], treatment_profiles(last, plan, settings))
            results += _results(feature_set, draws)
    assert corrected is not None
    scores: TreatmentScores = {
        "treatment": list(settings.profile.treatment),
        "mechanism": settings.profile.mechanism,
        "wells": len(plan.wells),
        "controls": int(plan.controls.sum()),
        "treatments": len(plan.treatments),
        "steps": steps,
        "results": results,
        "notes": list(dict.fromkeys(notes)),
    }
    return ScoredTreatments(plan, scores, corrected)


def beside(whole: ScoredTreatments, compared: ScoredTreatments) -> ScoredTreatments:
    """The embeddings of all wells, whose profiles these are, with the scores of all sets of features on some beside."""
    results, said = compared.scores["results"], compared.scores["notes"]
    notes = [*whole.scores["notes"], *(note for note in said if note not in whole.scores["notes"])]
    scores: TreatmentScores = {**whole.scores, "results": [*results, *whole.scores["results"]], "notes": notes}
    return dataclasses.replace(whole, scores=scores)


def treatment_rows(scores: TreatmentScores) -> list[ScoreRow]:
    """A row for each number, and one for what chance would give; the steps stand where a normalization does."""
    return [
        score_row(result["feature_set"], result["steps"], len(result["of_draws"]), row, result["level"])
        for result in scores["results"]
        for row in (
            Row(
                result["score"],
                result["by"],
                result["metric"],
                result["value"],
                result["n"],
                result["low"],
                result["high"],
            ),
            Row(result["score"], result["by"], f"{result['metric']}_{CHANCE}", result["chance"], result["n"]),
        )
    ]


def well_features(
    features: np.ndarray, components: Reduction | None, plan: TreatmentPlan, settings: EvalConfig
) -> np.ndarray:
    """[W, D] float64 of a plan's wells, out of features [N, D] of the set's images.

    Wide features come to the same number of components as for a classifier, fitted to all images of the plan, or to
    `_MOST_FITTED` of them, drawn without looking at labels: they are not of a fold, for nothing is predicted.
    """
    images = features[plan.images]
    if components is not None:
        count = min(len(images), _MOST_FITTED)
        fitted = np.sort(np.random.default_rng(settings.seed).choice(len(images), count, replace=False))
        preparation = build_preparation(count, images.shape[1], components, settings.seed)
        images = preparation.fit(images[fitted]).transform(images)
    well = pd.DataFrame({"well": plan.well_of_image})
    return aggregate(images, well, ("well",), (), settings.profile.well_statistic).features


def _tables(
    features: np.ndarray,
    components: Reduction | None,
    plan: TreatmentPlan,
    settings: EvalConfig,
    nulls: Nulls,
    notes: list[str],
) -> Iterator[WellTable]:
    """The wells before any step and behind each, as far as they can be made; why not goes to the notes."""
    wells = well_features(features, components, plan, settings)
    made, why = _behind_steps(wells, plan, plan.controls, settings)
    if why:
        notes.append(why)
    asked = []
    for half in control_halves(plan):
        of_half, why = _behind_steps(wells, plan, half, settings)
        if why and len(of_half) < len(made):
            notes.append(f"plates, told where steps are fitted to half of the controls: {why}")
        asked.append(([table for _, table in of_half], plan.controls & ~half))
    name, columns = WELLS, np.arange(wells.shape[1])
    for number, (step, table) in enumerate(made):
        if step is not None:
            name += f"+{step.name}"
            columns = None if step.kept is None or columns is None else columns[step.kept]
        measured = measure(table, plan, settings, nulls)
        notes += measured.notes
        if asked and all(number < len(tables) for tables, _ in asked):
            try:
                of_halves = [(comparable(tables[number]), controls) for tables, controls in asked]
                measured.measures.extend(separability(of_halves, plan, settings))
            except ValueError as error:
                notes.append(f"plates: {error}")
        yield WellTable(name, table, columns, measured)


def _behind_steps(
    wells: np.ndarray, plan: TreatmentPlan, controls: np.ndarray, settings: EvalConfig
) -> tuple[list[tuple[Step | None, np.ndarray]], str]:
    """The wells before any step and behind each, fitted to some controls; and why not all steps could be made."""
    made: list[tuple[Step | None, np.ndarray]] = [(None, wells)]
    try:
        for step, corrected in fit_correction(wells, plan.wells, controls, settings.profile):
            made.append((step, corrected))
    except ValueError as error:
        return made, str(error)
    return made, ""


def _results(feature_set: FeatureSet, draws: list[list[WellTable]]) -> list[TreatmentResult]:
    """The means over draws, of what all draws have."""
    results: list[TreatmentResult] = []
    for tables in zip(*draws):
        found = [{(m.score, m.metric): m for m in table.measured.measures} for table in tables]
        for key, first in found[0].items():
            if not all(key in other for other in found):
                continue
            same = [other[key] for other in found]
            lows, highs = [m.low for m in same if m.low is not None], [m.high for m in same if m.high is not None]
            results.append(
                {
                    "feature_set": feature_set.key,
                    "title": feature_set.title,
                    "steps": tables[0].steps,
                    "dim": tables[0].features.shape[1],
                    "level": first.level,
                    "score": first.score,
                    "by": first.by,
                    "metric": first.metric,
                    "value": float(np.mean([m.value for m in same])),
                    "of_draws": [m.value for m in same],
                    "chance": first.chance,
                    "n": first.n,
                    "low": float(np.mean(lows)) if lows else None,
                    "high": float(np.mean(highs)) if highs else None,
                }
            )
    return results
