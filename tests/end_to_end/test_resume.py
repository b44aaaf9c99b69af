"""A run that is killed and started again is the run that was not: real processes, real signals."""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from bie_jax.evaluation.embedding import write_embeddings
from tests.end_to_end.commands import launch

# The tests read whole checkpoints as they lie on disk, which Orbax advises programs against.
pytestmark = pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")


def _arguments(datasets, workdir, *extra):
    return [
        "--config=configs/vqvae_idr0093.py:tiny",
        f"--config.data.data_dir={datasets}",
        f"--workdir={workdir}",
        "--stage=train",
        "--config.train.epochs=3",
        "--config.optimizer.cooldown_epochs=0",
        "--config.train.checkpoint_every_steps=3",
        "--config.model.residual_stack.num_residual_layers=1",
        *extra,
    ]


def _run(launches, arguments):
    done = launches.run(*arguments)
    assert done.returncode == 0, done.stderr[-2000:]


def _signal_after_step(launches, arguments, workdir, step, number):
    """Start, wait until the log has passed a step and a checkpoint is whole, send the signal.

    Returns:
        The exit status and what was said.
    """
    process = launches.start(*arguments)
    log, checkpoints = Path(workdir) / "metrics.jsonl", Path(workdir) / "checkpoints"
    deadline = time.time() + 240
    while time.time() < deadline and Path(f"/proc/{process}").exists():
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        passed = any(json.loads(line)["step"] >= step for line in lines if line.endswith("\n"))
        if passed and any(path.name.isdigit() for path in checkpoints.glob("*")):
            break
        time.sleep(0.005)
    os.kill(process, number)
    done = launches.wait()
    assert done.returncode != 0, "the run ended before it could be interrupted"
    return done.returncode, done.stderr


def _deterministic_log(workdir):
    lines = [json.loads(line) for line in (Path(workdir) / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if not key.startswith("perf/")} for line in lines]


def _final_state(workdir):
    with ocp.training.Checkpointer(Path(workdir) / "checkpoints") as checkpointer:
        loaded = checkpointer.load_checkpointables(checkpointer.latest.step)
    del loaded["progress"]["log_bytes"]  # counts the digits of timings, too
    return loaded


def _assert_same_bits(a, b):
    import jax

    leaves = [jax.tree_util.tree_leaves_with_path(tree) for tree in (a, b)]
    assert len(leaves[0]) == len(leaves[1]) > 20
    for (path, x), (_, y) in zip(*leaves, strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y), err_msg=str(path))


@pytest.fixture(scope="module")
def unbroken(datasets, tmp_path_factory):
    """By the command as a person starts it; what is held against it runs in processes that begin sooner."""
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    done = launch(*_arguments(datasets, workdir))
    assert done.returncode == 0, done.stderr[-2000:]
    return workdir


@pytest.fixture(scope="module")
def killed(launches, datasets, tmp_path_factory):
    """A run that SIGKILL ended after step 8; tests go on with copies of it."""
    workdir = tmp_path_factory.mktemp("killed") / "run"
    returncode, said = _signal_after_step(launches, _arguments(datasets, workdir), workdir, 8, signal.SIGKILL)
    assert returncode == -9, said[-2000:]
    return workdir


def test_a_killed_run_is_the_unbroken_run_to_the_bit(launches, datasets, unbroken, killed, tmp_path):
    """Parameters, optimizer state, codebook, sums for the log, and every line of the log.

    What a kill during a save leaves, a temporary folder, is passed over.
    """
    workdir = tmp_path / "run"
    shutil.copytree(killed, workdir)
    checkpoints = workdir / "checkpoints"
    last = max(int(path.name) for path in checkpoints.iterdir() if path.name.isdigit())
    shutil.copytree(checkpoints / str(last), checkpoints / f"{last + 100}.orbax-checkpoint-tmp")
    _run(launches, _arguments(datasets, workdir))
    _assert_same_bits(_final_state(workdir), _final_state(unbroken))
    assert _deterministic_log(workdir) == _deterministic_log(unbroken)


def test_a_run_asked_to_stop_says_how_to_go_on_and_is_the_unbroken_run_to_the_bit(
    launches, datasets, unbroken, tmp_path
):
    workdir = tmp_path / "run"
    arguments = _arguments(datasets, workdir)
    returncode, said = _signal_after_step(launches, arguments, workdir, 13, signal.SIGTERM)
    assert returncode == 143, said[-2000:]
    assert "the same command goes on" in said
    _run(launches, arguments)
    _assert_same_bits(_final_state(workdir), _final_state(unbroken))
    assert _deterministic_log(workdir) == _deterministic_log(unbroken)


def test_a_run_on_sets_of_three_depths_is_resumed_to_the_bit_too(launches, three_depths, tmp_path):
    """The same rows of each set, of 8 and 16 bits and of floats, and the same windows of the larger images."""
    mixed = ("--config.data.mix_with=('bytes','floats')", "--config.data.mix_weights=(1.0,2.0,1.0)")
    whole, broken = (
        _arguments(three_depths, tmp_path / name, *mixed, "--config.train.epochs=2") for name in ("whole", "broken")
    )
    _run(launches, whole)
    returncode, said = _signal_after_step(launches, broken, tmp_path / "broken", 6, signal.SIGKILL)
    assert returncode == -9, said[-2000:]
    _run(launches, broken)
    _assert_same_bits(_final_state(tmp_path / "broken"), _final_state(tmp_path / "whole"))
    assert _deterministic_log(tmp_path / "broken") == _deterministic_log(tmp_path / "whole")


def test_a_run_goes_on_with_its_state_in_parts_and_is_embedded_on_one_device(datasets, unbroken, killed, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(killed, workdir)
    mesh = ("--config.train.mesh.data=1", "--config.train.mesh.fsdp=2")
    done = launch(*_arguments(datasets, workdir, *mesh), devices=2)
    assert done.returncode == 0, done.stderr[-2000:]
    logs = [[line for line in _deterministic_log(w) if "val/loss" in line] for w in (workdir, unbroken)]
    assert [line["step"] for line in logs[0]] == [line["step"] for line in logs[1]]
    np.testing.assert_allclose(logs[0][-1]["val/loss"], logs[1][-1]["val/loss"], rtol=0.05)
    assert len(write_embeddings(workdir)) == len(write_embeddings(unbroken))
