from pathlib import Path
from types import SimpleNamespace

import pytest

from bie_jax.config.rules import check_config
from bie_jax.training.collapse import CollapsedError, check_apart
from configs import simclr_idr0093

CALENDAR = SimpleNamespace(steps_per_epoch=4)
ALIKE = {"val/embedding_std": 1e-4, "val/loss": 0.1, "train/embedding_std": 0.5}


def _config(**train):
    config = simclr_idr0093.get_config("tiny")
    config.optimizer.warmup_epochs = 1
    config.train.update(train)
    return check_config(config)


def test_a_collapse_ends_a_run_after_the_warmup():
    config = _config(stop_at_collapse=True)
    check_apart(config, ALIKE, 4, CALENDAR, Path("run"))
    with pytest.raises(CollapsedError, match=r"at step 5: embedding_std=0.0001.* kept in run"):
        check_apart(config, ALIKE, 5, CALENDAR, Path("run"))
    check_apart(config, ALIKE | {"val/embedding_std": 0.3}, 5, CALENDAR, Path("run"))


def test_it_does_not_where_nobody_asked():
    check_apart(_config(), ALIKE, 5, CALENDAR, Path("run"))
