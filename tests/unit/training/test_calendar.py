"""When a run logs, validates, saves and ends: by counting, step by step."""

import pytest
from ml_collections import ConfigDict

from bie_jax.config.rules import check_config
from bie_jax.training.calendar import Calendar
from configs import base


@pytest.fixture
def calendar():
    config = base.get_config("tiny", "base")
    config.train.batch_size, config.train.epochs, config.optimizer.cooldown_epochs = 8, 4, 2
    config.train.log_every_steps, config.train.eval_every_epochs = 3, 2
    config.train.checkpoint_every_steps, config.train.early_stopping_patience_epochs = 4, 1
    return Calendar.of(check_config(ConfigDict(config.to_dict())), num_train_images=47)


def test_events_of_a_run_by_counting(calendar):
    """47 images in batches of 8: 5 whole ones an epoch, 6 epochs."""
    logs, validations, saves = ([step for step in range(1, 31) if due(step)] for due in
                                (calendar.logs, calendar.validates, calendar.saves))  # fmt: skip
    assert calendar.steps_per_epoch == 5
    assert calendar.total == 30
    assert logs == [3, 6, 9, 12, 15, 18, 21, 24, 27, 30]
    assert validations == [10, 20, 30]
    assert saves == [4, 8, 12, 16, 20, 24, 28]


def test_the_last_step_is_validated_wherever_it_falls():
    calendar = Calendar(steps_per_epoch=5, total=23, log_every=1, validate_every=10, save_every=100, patience=0)
    assert [step for step in range(1, 24) if calendar.validates(step)] == [10, 20, 23]


def test_a_small_set_makes_epochs_of_the_least_number_of_steps():
    config = base.get_config("tiny", "base")
    config.train.min_epoch_steps = 7
    assert Calendar.of(check_config(config), num_train_images=8).steps_per_epoch == 7


@pytest.mark.parametrize(
    ("step", "best_step", "over"),
    [
        (0, 0, False),  # nothing is known yet
        (15, 0, False),  # between two validations
        (10, 10, False),  # the best is the newest
        (20, 16, False),  # 4 steps ago, patience is 5
        (20, 15, True),
        (20, 10, True),
        (30, 30, True),  # all steps are made
    ],
)
def test_a_run_ends_after_its_patience_at_a_validation(calendar, step, best_step, over):
    assert calendar.is_over(step, best_step) == over


def test_without_patience_only_the_last_step_ends_a_run():
    calendar = Calendar(steps_per_epoch=5, total=30, log_every=1, validate_every=5, save_every=5, patience=0)
    assert [step for step in range(32) if calendar.is_over(step, 0)] == [30, 31]
