"""A run that is killed and started again is the run that was not: real processes, real signals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

# The tests read whole checkpoints as they lie on disk, which Orbax advises programs against.
pytestmark = pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")

ROOT = Path(__file__).resolve().parents[2]


def _command(datasets, workdir, *extra):
    return [
        sys.executable,
        "launch.py",
        "--config=configs/vqvae_idr0093.py:tiny",
        f"--config.data.data_dir={datasets}",
        f"--workdir={workdir}",
        "--stage=train",
        "--config.train.epochs=4",
        *extra,
    ]


def _environment(devices=1):
    return os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}


def _run(command, **options):
    done = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, timeout=300, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def _signal_after_step(command, workdir, step, number):
    """Start, wait until the log has passed a step, send the signal; returns the exit status and what was said."""
    process = subprocess.Popen(command, cwd=ROOT, env=_environment(), stderr=subprocess.PIPE, text=True)
    log = Path(workdir) / "metrics.jsonl"
    deadline = time.time() + 240
    while time.time() < deadline and process.poll() is None:
        lines = log.read_text().splitlines(keepends=True) if log.exists() else []
        if any(json.loads(line)["step"] >= step for line in lines if line.endswith("\n")):
            break
        time.sleep(0.005)
    assert process.poll() is None, "the run ended before it could be interrupted"
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    return process.returncode, said


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
    workdir = tmp_path_factory.mktemp("unbroken") / "run"
    _run(_command(datasets, workdir))
    return workdir


@pytest.fixture(scope="module")
def killed(datasets, tmp_path_factory):
    """A run that SIGKILL ended after step 8; tests go on with copies of it."""
    workdir = tmp_path_factory.mktemp("killed") / "run"
    returncode, said = _signal_after_step(_command(datasets, workdir), workdir, 8, signal.SIGKILL)
    assert returncode == -9, said[-2000:]
    return workdir


def test_a_killed_run_is_the_unbroken_run_to_the_bit(datasets, unbroken, killed, tmp_path):
    """Parameters, optimizer state, codebook, sums for the log, and every line of the log.

    What a kill during a save leaves, a temporary folder, is passed over.
    """
    workdir = tmp_path / "run"
    shutil.copytree(killed, workdir)
    checkpoints = workdir / "checkpoints"
    last = max(int(path.name) for path in checkpoints.iterdir() if path.name.isdigit())
    shutil.copytree(checkpoints / str(last), checkpoints / f"{last + 100}.orbax-checkpoint-tmp")
    _run(_command(datasets, workdir))
    _assert_same_bits(_final_state(workdir), _final_state(unbroken))
    assert _deterministic_log(workdir) == _deterministic_log(unbroken)


def test_a_run_asked_to_stop_says_how_to_go_on_and_is_the_unbroken_run_to_the_bit(datasets, unbroken, tmp_path):
    workdir = tmp_path / "run"
    command = _command(datasets, workdir)
    returncode, said = _signal_after_step(command, workdir, 13, signal.SIGTERM)
    assert returncode == 143, said[-2000:]
    assert "the same command goes on" in said
    _run(command)
    _assert_same_bits(_final_state(workdir), _final_state(unbroken))
    assert _deterministic_log(workdir) == _deterministic_log(unbroken)


def test_a_run_on_sets_of_three_depths_is_resumed_to_the_bit_too(three_depths, tmp_path):
    """The same rows of each set, of 8 and 16 bits and of floats, and the same windows of the larger images."""
    mixed = ("--config.data.mix_with=('bytes','floats')", "--config.data.mix_weights=(1.0,2.0,1.0)")
    whole, broken = (
        _command(three_depths, tmp_path / name, *mixed, "--config.train.epochs=3") for name in ("whole", "broken")
    )
    _run(whole)
    returncode, said = _signal_after_step(broken, tmp_path / "broken", 6, signal.SIGKILL)
    assert returncode == -9, said[-2000:]
    _run(broken)
    _assert_same_bits(_final_state(tmp_path / "broken"), _final_state(tmp_path / "whole"))
    assert _deterministic_log(tmp_path / "broken") == _deterministic_log(tmp_path / "whole")


def test_a_run_goes_on_on_another_number_of_devices(datasets, unbroken, killed, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(killed, workdir)
    command = _command(datasets, workdir)
    done = subprocess.run(command, cwd=ROOT, env=_environment(4), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    logs = [[line for line in _deterministic_log(w) if "val/loss" in line] for w in (workdir, unbroken)]
    assert [line["step"] for line in logs[0]] == [line["step"] for line in logs[1]]
    np.testing.assert_allclose(logs[0][-1]["val/loss"], logs[1][-1]["val/loss"], rtol=0.05)
