"""Several processes that train one run are the run of one: real processes, over the loopback interface."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from tests.end_to_end.commands import REPOSITORY, launch_arguments


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


@contextlib.contextmanager
def _pair(arguments, of_second=()):
    """Two processes with a device each; whatever is left of them at the end is killed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    processes = [
        subprocess.Popen(
            [sys.executable, "launch.py", *launch_arguments(*given), f"--distributed={address},2,{index}"],
            cwd=REPOSITORY,
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "1", "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index, given in enumerate((arguments, (*arguments, *of_second)))
    ]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _ended(processes):
    """Exit statuses, and what was said."""
    said = [process.communicate(timeout=120)[1] for process in processes]
    return [process.returncode for process in processes], said


def _log(workdir):
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _wait_for_step(workdir, step, processes):
    while not any(line["step"] >= step for line in _log(workdir)):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.02)


@pytest.fixture(scope="module")
def whole(launches, datasets, tmp_path_factory):
    """A run of one process."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    done = launches.run(*_arguments(datasets, workdir))
    assert done.returncode == 0, done.stderr[-2000:]
    return workdir


def test_two_that_share_the_state_are_stopped_together_lose_one_and_are_gone_on_with_by_one(
    launches, datasets, whole, tmp_path
):
    workdir = tmp_path / "run"
    in_parts = _arguments(datasets, workdir, "--config.train.mesh.data=1", "--config.train.mesh.fsdp=2")
    with _pair(in_parts) as processes:
        _wait_for_step(workdir, 4, processes)
        processes[1].send_signal(signal.SIGTERM)
        statuses, said = _ended(processes)
    assert statuses == [143, 143], said
    assert all("stopped by SIGTERM at step" in text for text in said)
    stopped_at = _log(workdir)[-1]["step"]

    with _pair(in_parts) as processes:
        _wait_for_step(workdir, stopped_at + 2, processes)
        processes[1].kill()
        line = next(line for line in processes[0].stderr if "lost another one" in line)
    assert line.startswith("launch.py: process 0 of 2 lost another one")

    done = launches.run(*_arguments(datasets, workdir))
    assert done.returncode == 0, done.stderr[-2000:]
    for ours, theirs in zip(_log(workdir), _log(whole), strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - {"perf/images_per_s"}:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, err_msg=name)


def test_two_embed_what_one_embeds(launches, whole):
    done = launches.run(f"--workdir={whole}", "--stage=embed")
    assert done.returncode == 0, done.stderr[-2000:]
    by_one = pd.read_parquet(whole / "embeddings.parquet")
    with _pair((f"--workdir={whole}", "--stage=embed")) as processes:
        statuses, said = _ended(processes)
    assert statuses == [0, 0], said
    pd.testing.assert_frame_equal(pd.read_parquet(whole / "embeddings.parquet"), by_one, atol=1e-6)


def test_two_configurations_are_no_run(datasets, tmp_path):
    with _pair(_arguments(datasets, tmp_path / "run"), ("--config.train.seed=1",)) as processes:
        statuses, said = _ended(processes)
    assert statuses == [1, 1]
    assert all("another configuration than in process 0 in process 1: give all of them the same" in t for t in said)
    assert not (tmp_path / "run" / "config.json").exists()
