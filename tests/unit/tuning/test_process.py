"""A trial's process, without Ray around it: a real one, which writes a log, fails, or is killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

pytest.importorskip("ray")
# Here jax has threads; the processes that Ray starts for trials do not import it.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")

from bie_jax.tuning.command import environment_of
from bie_jax.tuning.process import TrialProcess
from bie_jax.tuning.sweep import Share

VALIDATES = """
import json, sys, time
for epoch in (1, 2):
    with open(sys.argv[1], "a") as log:
        log.write(json.dumps({"step": epoch, "epoch": epoch, "train/loss": 9.0}) + "\\n")
        log.write(json.dumps({"step": epoch, "epoch": epoch, "val/loss": 1.0 / epoch}) + "\\n")
"""


def _started(tmp_path, code, *, metric="val/loss", environment=None):
    one = TrialProcess.__new__(TrialProcess)
    workdir = tmp_path / "run"
    workdir.mkdir(exist_ok=True)
    one.setup(
        {
            "command": [sys.executable, "-c", f"import sys\n{code}", str(workdir / "metrics.jsonl")],
            "cwd": str(tmp_path),
            "environment": environment or {"TOLD": "yes"},
            "workdir": str(workdir),
            "log": str(tmp_path / "run.log"),
            "metric": metric,
        }
    )
    return one


def _all(one):
    results = []
    while not results or not results[-1]["done"]:
        results.append(one.step())
    return results


def test_validations_are_told_as_they_come_and_the_end_with_the_last(tmp_path):
    results = _all(_started(tmp_path, VALIDATES))
    assert [(found["epoch"], found["value"], found["done"]) for found in results] == [
        (1.0, 1.0, False),
        (2.0, 0.5, False),
        (2.0, 0.5, True),
    ]
    assert (results[-1]["code"], results[-1]["said"]) == (0, "")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "print('bar |###'); print('launch.py: the loss is nan'); print('later'); sys.exit(1)",
            "the loss is nan",
        ),
        ("raise MemoryError('no room')", "MemoryError: no room"),
        ("raise MemoryError('no room:\\n  1 GB of this\\n2 GB of that')", "MemoryError: no room:"),
        # As jax does it.
        ("error = ValueError('why'); error.add_note('-----\\nFor simplicity'); raise error", "ValueError: why"),
        ("raise SystemExit(3)", "exit status 3"),
        ("import os; os.kill(os.getpid(), 9)", "ended by SIGKILL, by the system if memory ran out"),
        ("import os; assert os.environ['TOLD'] == 'yes'; raise SystemExit('told')", "told"),
    ],
)
def test_why_a_trial_failed_is_said_in_a_line(tmp_path, code, said):
    (result,) = _all(_started(tmp_path, code))
    assert result["value"] is None
    assert result["code"] != 0
    assert result["said"] == said


def test_half_a_line_is_waited_for(tmp_path):
    code = "\n".join(
        [
            "import sys, time",
            "log = open(sys.argv[1], 'a')",
            'log.write(\'{"epoch": 1, "val/lo\'); log.flush(); time.sleep(1)',
            "log.write('ss\": 0.5}\\n'); log.close(); time.sleep(1)",
        ]
    )
    results = _all(_started(tmp_path, code))
    assert [found["value"] for found in results] == [0.5, 0.5]


def test_a_trial_that_is_stopped_saves_and_one_that_is_left_alone_ends(tmp_path):
    code = "\n".join(
        [
            "import signal, sys, time",
            "def save(*_):",
            "    open('saved', 'w').close(); sys.exit(0)",
            "signal.signal(signal.SIGTERM, save)",
            "open('ready', 'w').close()",
            "time.sleep(60)",
        ]
    )
    one = _started(tmp_path, code)
    _wait_for(tmp_path / "ready")
    one.cleanup()
    assert (tmp_path / "saved").exists()
    (tmp_path / "saved").unlink()
    (tmp_path / "ready").unlink()

    # Whoever started it is killed, and cannot say so.
    start = (
        "import sys, time; sys.path.insert(0, sys.argv[1])\n"
        "from tests.unit.tuning.test_process import _started\n"
        "from pathlib import Path\n"
        "_started(Path(sys.argv[2]), sys.argv[3]); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", start, os.getcwd(), str(tmp_path), code])
    _wait_for(tmp_path / "ready")
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _wait_for(tmp_path / "saved")


def _wait_for(path):
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.1)
    raise AssertionError(path)


def test_a_trial_is_told_its_share(tmp_path, monkeypatch):
    told = environment_of(Share(2, 0.5, 0), "mine", "lr=1,seed=0")
    assert told["NPROC"] == told["OMP_NUM_THREADS"] == told["LOKY_MAX_CPU_COUNT"] == "2"
    assert told["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.375"
    assert (told["WANDB_RUN_GROUP"], told["WANDB_NAME"]) == ("mine", "lr=1,seed=0")
    for gpus in (0, 1, 2):
        assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in environment_of(Share(2, gpus, 0), "mine", "")

    # Which GPU it is stands in the environment of Ray's process; how much of it, in what the sweep says.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # Ray's own idea of it
    shown = ("CUDA_VISIBLE_DEVICES", "XLA_PYTHON_CLIENT_MEM_FRACTION", "OMP_NUM_THREADS", "WANDB_RUN_GROUP")
    code = f"import os; raise SystemExit(' '.join(os.environ[name] for name in {shown}))"
    (result,) = _all(_started(tmp_path, code, environment=dict(told)))
    assert result["said"] == "3 0.375 2 mine"
