"""When a run logs, validates and saves, all in optimizer steps."""

import dataclasses
from typing import Self

from bie_jax.config.schema import Config


@dataclasses.dataclass(frozen=True)
class Calendar:
    """Steps are counted from 1: step n has been made when its events are due.

    Attributes:
        steps_per_epoch: optimizer steps.
        total: steps of the whole run, the cooldown included.
        log_every, validate_every, save_every: steps between two.
        patience: steps without a better validation after which a run ends; 0: never.
    """

    steps_per_epoch: int
    total: int
    log_every: int
    validate_every: int
    save_every: int
    patience: int

    @classmethod
    def of(cls, config: Config, num_train_images: int) -> Self:
        """As a configuration has it, for a set with so many images to train on."""
        train = config.train
        steps_per_epoch = max(num_train_images // train.batch_size, train.min_epoch_steps)
        return cls(
            steps_per_epoch=steps_per_epoch,
            total=(train.epochs + config.optimizer.cooldown_epochs) * steps_per_epoch,
            log_every=train.log_every_steps,
            validate_every=train.eval_every_epochs * steps_per_epoch,
            save_every=train.checkpoint_every_steps,
            patience=train.early_stopping_patience_epochs * steps_per_epoch,
        )

    def logs(self, step: int) -> bool:
        """Whether a line of averages is due."""
        return step % self.log_every == 0

    def validates(self, step: int) -> bool:
        """Whether a validation is due; the last step has one."""
        return step % self.validate_every == 0 or step == self.total

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is due, whatever the validations do."""
        return step % self.save_every == 0

    def is_over(self, step: int, best_step: int) -> bool:
        """Whether no step follows: all are made, or the best validation is too long ago.

        Nothing is known between two validations, and a run that ends after one is saved.
        """
        stalled = step > 0 and self.validates(step) and 0 < self.patience <= step - best_step
        return step >= self.total or stalled
