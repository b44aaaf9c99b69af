"""What whole commands are tested with."""

import pytest

from tests.end_to_end.commands import launcher
from tests.unit.evaluation.conftest import evaluate_fake, finished, image_set

__all__ = ["evaluate_fake", "finished", "image_set", "launches"]


@pytest.fixture(scope="session")
def launches(tmp_path_factory):
    """See `commands.Launcher`."""
    with launcher(tmp_path_factory.mktemp("launcher")) as one:
        yield one
