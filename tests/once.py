"""What all processes of one run of the tests share: made by the first that asks for it."""

import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Any]) -> tuple[Path, Any]:
    """A folder, and what was returned when it was filled; to be left as it is, for other processes read it too.

    Args:
        factory: fixture `tmp_path_factory`.
        name: of the folder.
        make: fills the empty folder that it is given; what it returns survives JSON. It must not ask for others.
    """
    top = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        top = top.parent  # each worker has a folder of its own in there
    folder, result = top / name, top / f"{name}.json"
    with open(top / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not result.exists():
            shutil.rmtree(folder, ignore_errors=True)  # half of it is there if making it failed
            folder.mkdir()
            made = make(folder)
            result.write_text(json.dumps(made))
    return folder, json.loads(result.read_text())
