"""Several processes that train one run are the run of one: real processes, over the loopback interface."""

import json
import os
import signal
import socket
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.end_to_end.commands import launcher


def _arguments(datasets, workdir, *extra):
    return (
        "--config=configs/vqvae_idr0093.py:tiny",
        f"--config.data.data_dir={datasets}",
        f"--workdir={workdir}",
        "--stage=train",
        "--config.train.epochs=2",
        "--config.optimizer.cooldown_epochs=0",
        "--config.train.checkpoint_every_steps=3",
        "--config.model.residual_stack.num_residual_layers=1",
        *extra,
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What starts a process, twice."""
    with (
        launcher(tmp_path_factory.mktemp("first")) as first,
        launcher(tmp_path_factory.mktemp("second")) as second,
    ):
        yield first, second


def _start(two, arguments, of_second=()):
    """Two processes with a device each: their numbers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    of_each = (arguments, (*arguments, *of_second))
    return [one.start(*given, f"--distributed={address},2,{i}") for i, (one, given) in enumerate(zip(two, of_each))]


def _ended(two):
    """Exit statuses, and what was said."""
    done = [one.wait() for one in two]
    return [each.returncode for each in done], [each.stderr for each in done]


def _log(workdir):
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _wait(until, processes):
    """Until something is so, while both processes are there."""
    while not until():
        assert all(Path(f"/proc/{process}").exists() for process in processes)
        time.sleep(0.02)


def _has_step(workdir, step):
    return any(line["step"] >= step for line in _log(workdir))


@pytest.fixture(scope="module")
def whole(launches, datasets, tmp_path_factory):
    """A run of one process."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    done = launches.run(*_arguments(datasets, workdir))
    assert done.returncode == 0, done.stderr[-2000:]
    return workdir


def test_two_that_share_the_state_are_stopped_together_lose_one_and_are_gone_on_with_by_one(
    two, launches, datasets, whole, tmp_path
):
    workdir = tmp_path / "run"
    in_parts = _arguments(datasets, workdir, "--config.train.mesh.data=1", "--config.train.mesh.fsdp=2")
    processes = _start(two, in_parts)
    _wait(lambda: _has_step(workdir, 4), processes)
    os.kill(processes[1], signal.SIGTERM)
    statuses, said = _ended(two)
    assert statuses == [143, 143], said
    assert all("stopped by SIGTERM at step" in text for text in said)
    stopped_at = _log(workdir)[-1]["step"]

    processes = _start(two, in_parts)
    _wait(lambda: _has_step(workdir, stopped_at + 2), processes)
    os.kill(processes[1], signal.SIGKILL)
    # In a step it says itself that it lost one; where it waits for the other to save, jax names that one and ends it.
    left = Path(f"/proc/{processes[0]}")
    while left.exists() and "launch.py: process 0 of 2 lost another one" not in two[0].said():
        time.sleep(0.02)
    if left.exists():
        os.kill(processes[0], signal.SIGKILL)  # it would wait for jax to name the other one
    statuses, said = _ended(two)
    assert statuses[0] in (-signal.SIGKILL, -signal.SIGABRT)
    assert statuses[1] == -signal.SIGKILL
    assert "lost another one" in said[0] or "tasks are unhealthy" in said[0], said[0]

    done = launches.run(*_arguments(datasets, workdir))
    assert done.returncode == 0, done.stderr[-2000:]
    for ours, theirs in zip(_log(workdir), _log(whole), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"perf/images_per_s"}:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, err_msg=name)


def test_two_embed_what_one_embeds(two, launches, whole):
    done = launches.run(f"--workdir={whole}", "--stage=embed")
    assert done.returncode == 0, done.stderr[-2000:]
    by_one = pd.read_parquet(whole / "embeddings.parquet")
    _start(two, (f"--workdir={whole}", "--stage=embed"))
    statuses, said = _ended(two)
    assert statuses == [0, 0], said
    pd.testing.assert_frame_equal(pd.read_parquet(whole / "embeddings.parquet"), by_one, atol=1e-6)


def test_two_configurations_are_no_run(two, datasets, tmp_path):
    _start(two, _arguments(datasets, tmp_path / "run"), ("--config.train.seed=1",))
    statuses, said = _ended(two)
    assert statuses == [1, 1]
    assert all("another configuration than in process 0 in process 1: give all of them the same" in t for t in said)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_folder_that_is_not_shared_is_refused_before_the_first_step(two, datasets, tmp_path):
    _start(two, _arguments(datasets, tmp_path / "run"), (f"--workdir={tmp_path / 'elsewhere'}",))
    statuses, said = _ended(two)
    assert statuses == [1, 1]
    assert all("process 1 does not see what process 0 wrote there; the folder must lie on a disk" in t for t in said)
    assert not _log(tmp_path / "run")
