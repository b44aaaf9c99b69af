import json

import pytest

pytest.importorskip("optuna")

from bie_jax.config.schema import ConfigError
from bie_jax.files.integrity import DamagedFileError
from bie_jax.tuning.folder import SweepFolder
from bie_jax.tuning.search import TrialQueue
from bie_jax.tuning.sweep import TPE, Choice, Logged, Range
from bie_jax.tuning.trials import Base, planned_settings, trials_of
from tests.unit.tuning.sweeps import sweep

BASE = Base("configs/vqvae_idr0093.py:tiny", {}, ())


def test_a_folder_is_of_one_sweep(tmp_path):
    folder = SweepFolder(tmp_path)
    folder.begin({"seeds": [0, 1], "axes": {"a": {"values": [1, 2]}}})
    folder.begin({"seeds": [0, 1], "axes": {"a": {"values": [1, 2]}}})
    with pytest.raises(ConfigError, match=r"is of another sweep; .*\nseeds: the folder has \[0, 1\], this sweep \[0\]"):
        folder.begin({"seeds": [0], "axes": {"a": {"values": [1, 2]}}})


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    (tmp_path / "photo.png").touch()
    with pytest.raises(ConfigError, match=r"holds other things than a sweep \(photo.png\)"):
        SweepFolder(tmp_path).begin({})


def test_records_come_back_as_they_were_with_tuples(tmp_path):
    folder, one = SweepFolder(tmp_path), sweep(axes={"model.quantizer.levels": Choice(((8, 2), (3, 3)))}, num_folds=2)
    folder.begin(one.described())
    written = []
    for number, setting in enumerate(planned_settings(one)):
        for trial in trials_of(BASE, one, setting):
            folder.write(trial, number, "finished", 0.5, "", 3.14159)
            written.append((number, trial))
    found = [(record["number"], trial) for trial, record in folder.records()]
    assert found == sorted(written, key=lambda pair: (pair[0], pair[1].seed, pair[1].fold))
    file = folder.path / "trials" / f"{written[0][1].name}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"value": 0.9}))
    with pytest.raises(DamagedFileError):
        list(folder.records())


def _drain(queue):
    trials = []
    while (found := queue.next()) is not None:
        trials.append(found)
    return trials


def test_trials_of_all_seeds_folds_and_parts_are_counted(tmp_path):
    one = sweep(num_folds=3, held_out=(("P1",), ("P2",)))
    folder = SweepFolder(tmp_path)
    folder.begin(one.described())
    queue = TrialQueue(BASE, one, folder)
    assert one.units_per_setting == 2 * 2
    assert queue.total == queue.left == len(_drain(queue)) == 2 * 2 * 2 * 3


def test_a_queue_gives_what_is_not_done_and_what_failed(tmp_path):
    folder, one = SweepFolder(tmp_path), sweep()
    folder.begin(one.described())
    queue = TrialQueue(BASE, one, folder)
    trials = _drain(queue)
    assert (queue.total, queue.left, len(trials)) == (4, 4, 4)
    for (number, trial), state in zip(trials[:3], ("finished", "failed", "stopped"), strict=True):
        folder.write(trial, number, state, None if state == "failed" else 1.0, "", 1)
    again = TrialQueue(BASE, one, folder)
    assert again.left == 2
    assert [trial.name for _, trial in _drain(again)] == [trials[1][1].name, trials[3][1].name]


def test_a_search_goes_on_where_it_was_killed_and_its_memory_is_lines_of_json(tmp_path):
    """Every proposal is known, and told once all its seeds are done, to whichever process that happens in."""
    one = sweep(
        axes={"optimizer.lr": Range(1e-4, 1e-1, log=True, whole=False), "model.channels": Choice(("joint", "x"))},
        search=TPE(6, 0),
        metric=Logged("val/loss", maximize=False),
    )
    folder = SweepFolder(tmp_path)
    folder.begin(one.described())
    queue = TrialQueue(BASE, one, folder)
    first = [queue.next() for _ in range(3)]  # both seeds of a setting, one of the next
    for number, trial in first[:2]:
        folder.write(trial, number, "finished", 0.25, "", 1)
        queue.tell(number, 0.25)
    del queue  # killed
    again = TrialQueue(BASE, one, folder)
    rest = []
    while (found := again.next()) is not None:
        number, trial = found
        rest.append(trial.name)
        folder.write(trial, number, "finished", 0.5, "", 1)
        again.tell(number, 0.5)
    assert rest[0] == first[2][1].name
    assert len(rest) == len(set(rest)) == 10
    assert {trial.name for _, trial in first[:2]}.isdisjoint(rest)
    lines = [json.loads(line) for line in (tmp_path / "search.jsonl").read_text().splitlines()]
    told = [line["values"] for line in lines if line.get("values")]
    assert told == [[0.25], *[[0.5]] * 5]
    assert TrialQueue(BASE, one, folder).next() is None


def test_a_search_finds_the_better_end(tmp_path):
    """TPE asks near what was good: of 30 proposals the last ten lie lower than the first ten."""
    one = sweep(
        axes={"optimizer.lr": Range(0.0, 1.0, log=False, whole=False)},
        search=TPE(30, 0),
        metric=Logged("val/loss", maximize=False),
        seeds=(0,),
    )
    folder = SweepFolder(tmp_path)
    folder.begin(one.described())
    queue, asked = TrialQueue(BASE, one, folder), []
    while (found := queue.next()) is not None:
        number, trial = found
        asked.append(trial.setting["optimizer.lr"])
        queue.tell(number, asked[-1])
    assert sum(asked[-10:]) < 0.5 * sum(asked[:10])
