"""The folder of a sweep: what it is of, what became of each trial, and the trials' own folders.

sweep.json                  the sweep and the configuration that it starts from
search.jsonl                the memory of a search that proposes settings, as Optuna's journal (JSON lines)
trials/NAME/                a run's folder, as `launch.py` makes it; trials/NAME.log: what it said
trials/NAME.json            what became of it
ranking.parquet, ranking.md, trials.parquet, index.html
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypedDict

from bie_jax.config.schema import ConfigError
from bie_jax.config.stored import flatten
from bie_jax.files import integrity
from bie_jax.tuning.trials import Trial

SWEEP, SEARCH, TRIALS = "sweep.json", "search.jsonl", "trials"
RANKING, RANKING_TEXT, TRIAL_TABLE, PAGE = "ranking.parquet", "ranking.md", "trials.parquet", "index.html"
_RESTORE = "restore it from a copy, or begin in another folder"

State = Literal["planned", "finished", "stopped", "failed"]


class Record(TypedDict):
    """What became of a trial.

    `number` is that of its setting; `why` says why it failed; `value` is the metric's, of a trial that was stopped the
    last one; None where there is none.
    """

    number: int
    setting: dict[str, Any]
    seed: int
    fold: int | None
    held_out: list[str]
    arguments: list[str]
    state: State
    value: float | None
    why: str
    seconds: float


@dataclasses.dataclass(frozen=True)
class SweepFolder:
    """The files of a sweep."""

    path: Path

    def workdir(self, trial: Trial) -> Path:
        """Of a trial."""
        return self.path / TRIALS / trial.name

    def log(self, trial: Trial) -> Path:
        """What a trial said."""
        return self.path / TRIALS / f"{trial.name}.log"

    def begin(self, described: dict[str, Any]) -> None:
        """Write what the sweep is, or hold it against what was written.

        Args:
            described: `Sweep.described`, and the configuration that it starts from.

        Raises:
            ConfigError: if the folder holds something else than this sweep.
        """
        file = self.path / SWEEP
        if not file.exists():
            others = sorted(path.name for path in self.path.iterdir() if not path.name.startswith("."))
            # Both may be there alone, after a kill while the first file was written.
            others = [name for name in others if name not in (integrity.CHECKSUMS, TRIALS)]
            if others:
                raise ConfigError(
                    f"--workdir={self.path}: the folder holds other things than a sweep ({', '.join(others[:3])}); "
                    "choose one that is empty or not there yet, e.g. --workdir=sweeps/first"
                )
            (self.path / TRIALS).mkdir(exist_ok=True)
            integrity.write_json(file, described)
            return
        before, now = flatten(integrity.read_json(file, _RESTORE)), flatten(described)
        differing = [
            f"{key}: the folder has {before.get(key, 'nothing')!r}, this sweep {now.get(key, 'nothing')!r}"
            for key in sorted(before.keys() | now.keys())
            if before.get(key) != now.get(key)
        ]
        if differing:
            raise ConfigError(
                f"{self.path} is of another sweep; choose another --workdir, or remove that one:\n"
                + "\n".join(differing)
            )

    def write(self, trial: Trial, number: int, state: State, value: float | None, why: str, seconds: float) -> Record:
        """Note what became of a trial.

        Args:
            trial: that it became of.
            number: of its setting.
            state: what became of it.
            value: of the metric.
            why: it failed.
            seconds: that it took, all times that it was started together.
        """
        record: Record = {
            "number": number,
            "setting": trial.setting,
            "seed": trial.seed,
            "fold": trial.fold,
            "held_out": list(trial.held_out),
            "arguments": list(trial.arguments),
            "state": state,
            "value": value,
            "why": why,
            "seconds": round(seconds, 1),
        }
        integrity.write_json(self.path / TRIALS / f"{trial.name}.json", record)
        return record

    def records(self) -> Iterator[tuple[Trial, Record]]:
        """All trials that there are, by the number of their setting.

        Raises:
            DamagedFileError: for a file that is not what was written.
        """
        files = (self.path / TRIALS).glob("[!.]*.json")
        found = [integrity.read_json(path, _RESTORE) for path in files if path.name != integrity.CHECKSUMS]
        found.sort(key=lambda record: (record["number"], record["held_out"], record["seed"], record["fold"] or 0))
        for record in found:
            trial = Trial(
                {name: _with_tuples(value) for name, value in record["setting"].items()},
                record["seed"],
                record["fold"],
                tuple(record["held_out"]),
                tuple(record["arguments"]),
            )
            yield trial, record


def _with_tuples(value: Any) -> Any:
    """JSON has no tuples, and no value of a configuration is a list."""
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
