"""Which setting is best, by how much, and what that is worth on data that the choice did not see."""

import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bie_jax.evaluation.scores.keys import NOT_SAME_WELL, PLATE_IDENTITY
from bie_jax.files import integrity
from bie_jax.tuning.folder import RANKING, RANKING_TEXT, TRIAL_TABLE, Record, SweepFolder
from bie_jax.tuning.sweep import Metric, Score, Sweep
from bie_jax.tuning.trials import Setting, Trial, describe_setting, written
from bie_jax.tuning.values import Unit, pooled_value, unit_of

# A unit of comparison: what is held out, and the seed.
UnitKey = tuple[tuple[str, ...], int]


@dataclasses.dataclass(frozen=True)
class Row:
    """A setting among the others.

    Attributes:
        number: of the setting.
        setting: of the axes.
        units: by what is held out and seed, those that are whole.
        planned: units that there should be.
        difference: mean of its units less the best setting's, paired by unit; None for the best one, for what was
            stopped, and where no unit is shared.
        interval: 95 % of that mean, by Student's t over the pairs; None with fewer than two.
        stopped: whether a trial of it was stopped for falling behind.
        seconds: of its trials, the mean.
        why: what went wrong, if anything did.
    """

    number: int
    setting: Setting
    units: Mapping[UnitKey, Unit]
    planned: int
    difference: float | None
    interval: tuple[float, float] | None
    stopped: bool
    seconds: float
    why: str

    @property
    def title(self) -> str:
        """The setting in a line."""
        return describe_setting(self.setting)

    @property
    def values(self) -> list[float]:
        """The metric of each unit."""
        return [unit.value for unit in self.units.values()]

    def mean(self, name: str) -> float | None:
        """Of a field of the units; None where one does not have it, or where there is none."""
        found = [getattr(unit, name) for unit in self.units.values()]
        return None if not found or None in found else float(np.mean(found))

    def spread(self) -> float | None:
        """Standard deviation of the metric over the units; None with fewer than two."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What the choice is worth.

    Attributes:
        titles: the chosen setting, of each held-out part the one chosen without it.
        chosen_by: the metric that chose, of the chosen.
        held_out: of the chosen on what was held out, mean over seeds; None where nothing was held out.
        mean_chosen_by: the metric that chose, of all settings.
        mean_held_out: on what was held out, of all settings.
        comparable: whether both are the same score, of other images.
    """

    titles: Mapping[tuple[str, ...], str]
    chosen_by: float
    held_out: float | None
    mean_chosen_by: float
    mean_held_out: float | None
    comparable: bool

    @property
    def optimism(self) -> float | None:
        """By how much choosing flatters: the chosen one's lead over the mean where it was chosen, less its lead where
        nobody looked; parts of the data are not equally hard, and the means take that out. None if it is not known."""
        if self.held_out is None or self.mean_held_out is None or not self.comparable:
            return None
        return (self.chosen_by - self.mean_chosen_by) - (self.held_out - self.mean_held_out)


@dataclasses.dataclass(frozen=True)
class Ranking:
    """All settings, the best first; and what the choice is worth, None if there is no number at all."""

    rows: Sequence[Row]
    chosen: Chosen | None
    records: Sequence[tuple[Trial, Record]]


def rank(sweep: Sweep, folder: SweepFolder) -> Ranking:
    """Rank what there is, and write it.

    Raises:
        ConfigError, DamagedFileError: if a finished trial's files do not hold what they should.
        DiskError: if there is no room.
    """
    records = list(folder.records())
    rows = order(
        [_row(sweep, folder, number, of_setting) for number, of_setting in _by_setting(records).items()],
        sweep.metric.maximize,
    )
    ranking = Ranking(rows, choose(rows, sweep.metric), records)
    _write_table(folder, RANKING, table(ranking))
    _write_table(folder, TRIAL_TABLE, _trial_table(records))
    integrity.write_text(folder.path / RANKING_TEXT, as_text(ranking, sweep))
    return ranking


def order(rows: Sequence[Row], maximize: bool) -> list[Row]:
    """Rows by rank, each with its difference to the first: those with all units first, those with none last.

    Args:
        rows: whatever their `difference` is.
        maximize: whether more is better.
    """
    sign = -1 if maximize else 1

    def key(row: Row) -> tuple:
        mean = row.mean("value")
        missing = len(row.units) < row.planned
        return (row.stopped or mean is None, missing, sign * (mean or 0.0), row.number)

    ordered = sorted(rows, key=key)
    if not ordered:
        return []
    best = ordered[0]
    # What was stopped early is not compared with what was trained to the end.
    return [best, *(row if row.stopped else _compared(row, best) for row in ordered[1:])]


def choose(rows: Sequence[Row], metric: Metric) -> Chosen | None:
    """Choose a setting for each held-out part, by what does not hold it, and see what it is worth there.

    Args:
        rows: by rank.
        metric: what decides.
    """
    whole = [row for row in rows if row.units and len(row.units) == row.planned and not row.stopped]
    whole = whole or [row for row in rows if row.units and not row.stopped]
    if not whole:
        return None
    parts = sorted({held_out for row in whole for held_out, _ in row.units})
    best = max if metric.maximize else min
    by_part = {
        part: best((row for row in whole if _of_part(row, part)), key=lambda row: np.mean(_of_part(row, part)))
        for part in parts
    }
    chosen_by = float(np.mean([np.mean(_of_part(row, part)) for part, row in by_part.items()]))
    held_out = _held_out(by_part, metric)
    all_held_out = [_held_out(dict.fromkeys(parts, row), metric) for row in whole]
    known = [value for value in all_held_out if value is not None]
    return Chosen(
        titles={part: row.title for part, row in by_part.items()},
        chosen_by=chosen_by,
        held_out=held_out,
        mean_chosen_by=float(np.mean([np.mean(row.values) for row in whole])),
        mean_held_out=float(np.mean(known)) if known else None,
        comparable=isinstance(metric, Score) and metric.split not in (NOT_SAME_WELL, PLATE_IDENTITY),
    )


def table(ranking: Ranking) -> pd.DataFrame:
    """A row for each setting: rank, a column for each axis, the score that chose, its baselines, what was held out."""
    lines = []
    for place, row in enumerate(ranking.rows, 1):
        low, high = row.interval or (None, None)
        lines.append(
            {
                "rank": place,
                **{name: _plain(value) for name, value in row.setting.items()},
                "score_that_chose": row.mean("value"),
                "standard_deviation": row.spread(),
                "units": len(row.units),
                "planned": row.planned,
                "difference": row.difference,
                "difference_low": low,
                "difference_high": high,
                "random_weights": row.mean("random_weights"),
                "best_baseline": row.mean("best_baseline"),
                "held_out": row.mean("held_out"),
                "epochs": row.mean("epochs"),
                "seconds": row.seconds,
                "why": row.why,
            }
        )
    return pd.DataFrame(lines)


def as_text(ranking: Ranking, sweep: Sweep) -> str:
    """The ranking as Markdown, with a sentence on what the choice is worth."""
    shown = {
        "random_weights": "random weights",
        "best_baseline": "best baseline",
        "held_out": "held out",
    }
    kept = {name: title for name, title in shown.items() if any(row.mean(name) is not None for row in ranking.rows)}
    heads = [
        "",
        *sweep.axes,
        f"{sweep.metric} (chooses)",
        "difference, paired",
        *kept.values(),
        "epochs",
        "seconds",
        "",
    ]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for place, row in enumerate(ranking.rows, 1):
        mean, spread = row.mean("value"), row.spread()
        value = "" if mean is None else f"{mean:.4g}" + ("" if spread is None else f" ± {spread:.2g}")
        low_high = "" if row.interval is None else f" [{row.interval[0]:.2g}, {row.interval[1]:.2g}]"
        difference = "" if row.difference is None else f"{row.difference:+.3g}{low_high}"
        others = [_number(row.mean(name)) for name in kept]
        part = f"{len(row.units)} of {row.planned}; " if len(row.units) < row.planned else ""
        cells = [str(place), *map(written, row.setting.values()), value, difference, *others]
        cells += [_number(row.mean("epochs")), f"{row.seconds:.0f}", f"{part}{row.why}".removesuffix("; ")]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join([*lines, "", *sentences(ranking), ""])


def sentences(ranking: Ranking) -> list[str]:
    """What the choice is worth, in words."""
    chosen = ranking.chosen
    if chosen is None:
        return ["No trial gave a number."]
    titles = set(chosen.titles.values())
    what = titles.pop() if len(titles) == 1 else "another setting for each held-out part"
    begin = f"Chosen: {what}, at {chosen.chosen_by:.4g} by the score that chose, which flatters the chosen one."
    if chosen.held_out is None:
        return [f"{begin} Nothing was held out of the choice (held_out of the sweep), so there is no honest number."]
    honest = f"{begin} On what neither training nor choosing saw it is at {chosen.held_out:.4g}"
    if chosen.optimism is None:
        return [f"{honest} (macro F1)."]
    return [
        f"{honest}. All settings together are at {chosen.mean_chosen_by:.4g}, and at {chosen.mean_held_out:.4g} there: "
        f"choosing flatters by {chosen.optimism:+.2g}."
    ]


def _by_setting(records: Sequence[tuple[Trial, Record]]) -> dict[int, list[tuple[Trial, Record]]]:
    found: dict[int, list[tuple[Trial, Record]]] = {}
    for trial, record in records:
        found.setdefault(record["number"], []).append((trial, record))
    return found


def _row(sweep: Sweep, folder: SweepFolder, number: int, records: list[tuple[Trial, Record]]) -> Row:
    units: dict[UnitKey, Unit] = {}
    by_unit: dict[UnitKey, list[tuple[Trial, Record]]] = {}
    for trial, record in records:
        by_unit.setdefault((trial.held_out, trial.seed), []).append((trial, record))
    stopped = any(record["state"] == "stopped" for _, record in records)
    for key, of_unit in by_unit.items():
        values = [record["value"] for _, record in of_unit if record["value"] is not None]
        if len(of_unit) < max(1, sweep.num_folds) or len(values) < len(of_unit):
            continue
        if all(record["state"] == "finished" for _, record in of_unit):
            units[key] = unit_of([folder.workdir(trial) for trial, _ in of_unit], sweep.metric)
        else:  # stopped: it was not scored
            units[key] = Unit(float(np.mean(values)), None, None, None, None, float("nan"))
    return Row(
        number=number,
        setting=records[0][0].setting,
        units=units,
        planned=sweep.units_per_setting,
        difference=None,
        interval=None,
        stopped=stopped,
        seconds=float(np.mean([record["seconds"] for _, record in records])),
        why="; ".join(dict.fromkeys(record["why"] for _, record in records if record["why"])),
    )


def _compared(row: Row, best: Row) -> Row:
    shared = row.units.keys() & best.units.keys()
    if not shared:
        return row
    differences = np.array([row.units[key].value - best.units[key].value for key in sorted(shared)])
    mean = float(differences.mean())
    interval = None
    if len(differences) > 1:
        half = stats.t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / np.sqrt(len(differences))
        interval = (mean - float(half), mean + float(half))
    return dataclasses.replace(row, difference=mean, interval=interval)


def _of_part(row: Row, part: tuple[str, ...]) -> list[float]:
    return [unit.value for (held_out, _), unit in row.units.items() if held_out == part]


def _held_out(by_part: Mapping[tuple[str, ...], Row], metric: Metric) -> float | None:
    """Of the rows that stand for each held-out part, all parts of a seed counted together, the mean over seeds."""
    found: dict[int, list] = {}
    for part, row in by_part.items():
        for (held_out, seed), unit in row.units.items():
            if held_out == part and unit.confusion is not None:
                found.setdefault(seed, []).append(unit.confusion)
    whole = [confusions for confusions in found.values() if len(confusions) == len(by_part)]
    return float(np.mean([pooled_value(confusions, metric) for confusions in whole])) if whole else None


def _write_table(folder: SweepFolder, name: str, content: pd.DataFrame) -> None:
    buffer = io.BytesIO()
    content.to_parquet(buffer, index=False)
    integrity.write_bytes(folder.path / name, buffer.getvalue())


def _trial_table(records: Sequence[tuple[Trial, Record]]) -> pd.DataFrame:
    """A row for each trial."""
    lines = [
        {
            "trial": trial.name,
            **{name: _plain(value) for name, value in trial.setting.items()},
            "seed": trial.seed,
            "fold": trial.fold,
            "held_out": ", ".join(trial.held_out),
            **{name: record[name] for name in ("state", "value", "why", "seconds")},
        }
        for trial, record in records
    ]
    return pd.DataFrame(lines)


def _plain(value: Any) -> Any:
    """What a column of a table can hold."""
    return str(value) if isinstance(value, tuple) else value


def _number(value: float | None) -> str:
    return "" if value is None or np.isnan(value) else f"{value:.4g}"
