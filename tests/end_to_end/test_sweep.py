"""A sweep on a real Ray: killed and typed again, it ends as if nothing had happened; its trials are ordinary runs."""

import json
import os
import signal
import time

import pandas as pd
import pytest

from bie_jax.files.lock import LockedError, locked

pytest.importorskip("ray")

SWEEP = """
from bie_jax.tuning.sweep import Choice, Grid, Options, Score, Share, Sweep

BAD = {"optimizer.name": "sgd", "optimizer.lr": 100.0, "optimizer.clip_norm": 0.0}

def get_sweep():
    return Sweep(
        axes={"setting": Options({"good": {}, "bad": BAD})},
        fixed={
            "data.val_fraction": 0.4,
            "model.residual_stack.num_residual_layers": 1,
            "train.checkpoint_every_steps": 2,
            "eval.umap": False,
            "eval.classical_baseline": False,
            "eval.folds": 2,
            "eval.trees": 1,
            "eval.bootstrap": 2,
        },
        search=Grid(),
        metric=Score("raw", "stratified_k_fold", "logistic_regression", "macro_f1", maximize=True),
        seeds=(SEEDS),
        num_folds=0,
        held_out=(("SIM002",),),
        halving=None,
        at_once=2,
        each=Share(cores=1, gpus=0, memory_gb=0),
    )
"""


def _log(path):
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{key: value for key, value in line.items() if not key.startswith("perf/")} for line in lines]


def _is_free(workdir):
    try:
        with locked(workdir / ".lock"):
            return True
    except LockedError:
        return False


@pytest.fixture
def typed(tmp_path, datasets):
    """The arguments of a sweep."""
    (tmp_path / "mine.py").write_text(SWEEP.replace("SEEDS", "0,"))
    return (
        "--config=configs/vqvae_idr0093.py:tiny",
        f"--config.data.data_dir={datasets}",
        f"--sweep={tmp_path / 'mine.py'}",
        f"--workdir={tmp_path / 'sweep'}",
    )


def test_a_sweep_that_is_killed_goes_on_and_its_trials_are_ordinary_runs(launches, typed, tmp_path):
    trials = tmp_path / "sweep" / "trials"
    good, bad = trials / "setting=good,out=SIM002,seed=0", trials / "setting=bad,out=SIM002,seed=0"
    sweep = launches.start(*typed)
    deadline = time.monotonic() + 240
    while not _log(good / "metrics.jsonl"):
        assert time.monotonic() < deadline, launches.said()
        time.sleep(0.05)
    os.kill(sweep, signal.SIGKILL)
    assert launches.wait().returncode == -signal.SIGKILL
    while not (_is_free(good) and _is_free(bad)):  # its trials end by themselves
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (good / "scores.json").exists()

    done = launches.run(*typed)
    assert done.returncode == 0, done.stderr
    assert "2 trials, 0 are done" in done.stdout
    table = pd.read_parquet(tmp_path / "sweep" / "ranking.parquet")
    assert list(table["setting"]) == ["good", "bad"]
    assert table["held_out"].notna().tolist() == [True, False]
    assert table["random_weights"].notna().tolist() == [True, False]
    assert table["why"][1].startswith(("the loss of step ", "the validation loss at step "))
    page = (tmp_path / "sweep" / "index.html").read_text()
    assert 'href="trials/setting%3Dgood%2Cout%3DSIM002%2Cseed%3D0/report/index.html"' in page
    assert "SIMULATED DATA" in page
    assert (good / "report" / "index.html").is_file()

    record = json.loads((trials / f"{good.name}.json").read_text())
    by_hand = launches.run(*record["arguments"], f"--workdir={tmp_path / 'by_hand'}", "--stage=train")
    assert by_hand.returncode == 0, by_hand.stderr
    # The trial had one core, and sums of several threads round differently.
    for ours, theirs in zip(_log(good / "metrics.jsonl"), _log(tmp_path / "by_hand" / "metrics.jsonl"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5)
    split = pd.read_parquet(good / "embeddings.parquet").groupby("Metadata_Plate")["Metadata_split"].unique()
    assert set(split["SIM002"]) == {"held_out"}
    assert set(split["SIM001"]) == {"train", "val"}

    (tmp_path / "mine.py").write_text(SWEEP.replace("SEEDS", "1,"))
    other = launches.run(*typed)
    assert other.returncode == 1
    assert f"{tmp_path / 'sweep'} is of another sweep; choose another --workdir" in other.stderr
    assert "seeds: the folder has [0], this sweep [1]" in other.stderr


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("--stage=train",), "--sweep runs whole trials"),
        (("--config.train.seed=3",), "config.train.seed=3: seeds of the sweep sets this key; leave it out"),
        (("--config.optimizer.lr=fast",), "config.optimizer.lr='fast'"),
        (
            ("--config.eval.label=donor",),
            "trial setting=good,out=SIM002,seed=0: config.eval.label='donor' is no column",
        ),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_anything_is_written(launches, typed, tmp_path, changed, said):
    done = launches.run(*typed, *changed)
    assert done.returncode == 1
    assert done.stderr.startswith(f"launch.py: {said}")
    assert not (tmp_path / "sweep").exists()


def test_without_ray_a_sweep_says_what_to_install(launches, typed, tmp_path):
    """As where `make TUNE=0 install` left it out: a module of that name that is not found."""
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "ray.py").write_text("raise ModuleNotFoundError(\"No module named 'ray'\", name='ray')")
    done = launches.run(*typed, path=(tmp_path / "first",))
    assert done.returncode == 1
    assert done.stderr == "launch.py: --sweep needs ray: pip install -r requirements-tune.txt\n"
