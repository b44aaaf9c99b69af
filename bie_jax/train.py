"""The training loop; there is only this one. A method is a file in `objectives/`, and the loop knows none of them."""

import contextlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from bie_jax.config.rules import check_config
from bie_jax.config.schema import Config
from bie_jax.config.set_rules import check_run
from bie_jax.config.stored import check_workdir, save_config
from bie_jax.evaluation.baselines.published_weights import open_published
from bie_jax.evaluation.scores.plan import plan_scores
from bie_jax.evaluation.treatments.plan import plan_treatments
from bie_jax.files import integrity
from bie_jax.files.foreign_text import visible
from bie_jax.input.batches import train_batches
from bie_jax.input.mixture import Mixture, open_mixture
from bie_jax.input.positives import Positives, build_positives
from bie_jax.input.splits import describe_overlap, describe_room, describe_split, sides_of
from bie_jax.objectives import METHODS
from bie_jax.training import processes, run_files
from bie_jax.training.checkpoint import Checkpoints, Found, Progress, find_checkpoints
from bie_jax.training.collapse import CollapsedError, check_apart
from bie_jax.training.finite import LossWatch, NonFiniteLossError
from bie_jax.training.preflight import describe_dataset
from bie_jax.training.prepare import Run, prepare
from bie_jax.training.state import TrainState
from bie_jax.training.writers.log import MetricLogger
from bie_jax.training.writers.pictures import draw_validation
from bie_jax.training.writers.progress import ProgressBar
from bie_jax.training.writers.stop_signal import Interrupted, StopSignal
from bie_jax.training.writers.trace import StepProfiler

__all__ = ["CollapsedError", "Interrupted", "NonFiniteLossError", "train_and_evaluate"]


def train_and_evaluate(config: ConfigDict, workdir: str | Path) -> dict[str, float]:
    """Train, validating as it goes; or go on with what is in the workdir.

    Args:
        config: a configuration as the files in `configs/` return it.
        workdir: folder of the run: `config.json`, `dataset.json`, `metrics.jsonl`, `checkpoints/`, `reconstructions/`.

    Returns:
        `step` and `val/loss` of the best validation.

    Raises:
        ConfigError: for a configuration that cannot run here, before anything is written.
        SetNotBuiltError: if the set is not built.
        CollapsedError: see there, with `train.stop_at_collapse`.
        NonFiniteLossError: see there; checkpoints from before are kept.
        Interrupted: after SIGTERM or Ctrl-C, once the state is saved.
        DamagedFileError: if a file of the workdir is not what was written, before anything is done.
        LockedError: if another process trains in the workdir.
        DiskError: if there is no room; what was saved before is whole.
    """
    workdir = Path(workdir)
    # Everything that can be refused is refused before anything is written.
    checked = check_config(config)
    mixture = open_mixture(checked.data)
    train_rows, val_rows = check_run(checked, mixture)
    open_published(checked, len(mixture.sets[0].channel_names))
    check_workdir(checked, workdir)
    processes.check_same(checked)
    with run_files.opened(workdir):
        found = find_checkpoints(workdir)
        resumes = bool(found.whole)
        dataset = describe_dataset(mixture, workdir, resumes)
        positives = build_positives(checked.data, mixture.metadata, np.concatenate(train_rows))
        _announce(checked, mixture, train_rows, val_rows, positives)
        run = prepare(checked, mixture, train_rows, val_rows, dataset["sets"], workdir, resumes)
        if processes.is_first():
            save_config(checked, workdir)
            integrity.write_json(workdir / run_files.DATASET, dataset)
        processes.check_shared(workdir, run_files.DATASET)
        best = _train(checked, mixture, train_rows, positives, run, found, workdir)
        # Who embeds next must not look before the first process has entered the last checkpoint's checksums.
        processes.wait_for_all("the last checkpoint is whole")
        return best


def _announce(
    config: Config,
    mixture: Mixture,
    train_rows: list[np.ndarray],
    val_rows: list[np.ndarray],
    positives: Positives | None,
) -> None:
    """Say what will be trained and validated on, and what will not be scored."""
    for member, image_set in enumerate(mixture.sets):
        sides = tuple(rows - mixture.first_rows[member] for rows in (train_rows[member], val_rows[member]))
        print(f"{image_set.name}: {describe_split(image_set.metadata, *sides)}")
        for note in describe_room(config.data, image_set.metadata, *sides):
            print(f"{image_set.name}: {visible(note)}")
    if positives is not None:
        print(positives.describe(np.concatenate(train_rows)))
    main = mixture.sets[0].metadata  # said hours before it would be missed
    sides = sides_of(train_rows[0], val_rows[0], len(main))
    for note in plan_scores(main, sides, config.eval).notes:
        print(f"scores: {visible(note)}")
    treatments = plan_treatments(main, sides, config.eval)
    for note in () if treatments is None else treatments.notes:
        print(f"treatments: {visible(note)}")
    for note in describe_overlap(mixture.metadata, np.concatenate(train_rows), np.concatenate(val_rows)):
        print(note)


def _train(
    config: Config,
    mixture: Mixture,
    train_rows: list[np.ndarray],
    positives: Positives | None,
    run: Run,
    found: Found,
    workdir: Path,
) -> dict[str, float]:
    """`train_and_evaluate`, prepared, in a folder that is held."""
    calendar = run.calendar
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(workdir, found))
        stop = stack.enter_context(StopSignal())

        # --- Start, or go on
        state, progress = run.state, Progress()
        if checkpoints.latest_step is not None:
            state, progress = checkpoints.restore(state, checkpoints.latest_step)
        step = saved_step = int(state.step)
        batches = train_batches(
            mixture,
            train_rows,
            config.data.mix_weights,
            config.train.batch_size,
            config.train.seed,
            step,
            config.data.read_threads,
            positives,
            run.share,
        )

        # --- Writers
        logger = stack.enter_context(MetricLogger(workdir, progress.log_bytes, config.train.wandb, config.model_dump()))
        is_first = processes.is_first()
        bar = stack.enter_context(ProgressBar(workdir.name, config.train.batch_size, step, calendar.total, is_first))
        profiler = stack.enter_context(StepProfiler(workdir, config.train.profile_steps if is_first else 0))
        watch = LossWatch(mixture.metadata["source"].to_numpy(), workdir)

        # --- Loop
        while not calendar.is_over(step, progress.best_step):
            try:
                batch = next(batches)
            except Exception:  # an image that cannot be read costs nothing of what was learned before it
                watch.settle(saved_step)
                if step > saved_step:
                    _save(state, progress, None, checkpoints, logger)
                raise
            profiler.before_step()
            state, loss = run.train_step(state, run.put(batch))
            profiler.after_step(loss)
            step += 1
            watch.follow(step, batch["row"], loss, saved_step)
            bar.after_step()

            logs, validates, saves = calendar.logs(step), calendar.validates(step), calendar.saves(step)
            stop.hear(step)
            if not (logs or validates or saves or stop.number):
                continue
            watch.settle(saved_step)  # whatever is written from here on must not be poisoned
            if logs:
                state = _log(state, run, logger, bar)
            metrics, rank = {}, None
            if validates:
                bar.pause()
                state, metrics, rank = _validate(config, state, run, progress, logger, mixture, workdir)
            if validates or saves or stop.number:
                _save(state, progress, rank, checkpoints, logger)
                saved_step = step
            if metrics:
                check_apart(config, metrics, step, calendar, workdir)
            stop.check(step, calendar.total)
            bar.resume()
    return {"step": progress.best_step, "val/loss": progress.best_val_loss}


def _log(state: TrainState, run: Run, logger: MetricLogger, bar: ProgressBar) -> TrainState:
    """A line of averages since the last one, which begin anew."""
    step = int(state.step)
    window = jax.device_get(state.window)
    means = {f"train/{name}": float(value / window.steps) for name, value in window.sums.items()}
    rates = {"optimizer/lr": float(np.asarray(run.learning_rate(step - 1))), "perf/images_per_s": bar.images_per_s()}
    logger.write(step, step / run.calendar.steps_per_epoch, means | rates)
    bar.show(means["train/loss"])
    return state.replace(window=run.without_sums(state.window))


def _validate(
    config: Config,
    state: TrainState,
    run: Run,
    progress: Progress,
    logger: MetricLogger,
    mixture: Mixture,
    workdir: Path,
) -> tuple[TrainState, dict[str, Any], float]:
    """A line of validation metrics and a picture; notes in `progress` if there was no better one.

    Returns:
        State, metrics, and the rank of this state: less is better.
    """
    step = int(state.step)
    metrics, pictures = run.validate(state)
    metrics |= _prefixed("train/", run.summarize(jax.device_get(state.window.totals)))
    logger.write(step, step / run.calendar.steps_per_epoch, metrics)
    val_loss, newest_is_best = metrics["val/loss"], METHODS[config.model.name].newest_is_best
    if newest_is_best or val_loss < progress.best_val_loss:
        progress.best_val_loss, progress.best_step = val_loss, step
    if pictures is not None and processes.is_first():
        logger.write_picture(step, draw_validation(*pictures, mixture, workdir, step))
    return state.replace(window=run.without_totals(state.window)), metrics, -step if newest_is_best else val_loss


def _save(
    state: TrainState, progress: Progress, rank: float | None, checkpoints: Checkpoints, logger: MetricLogger
) -> None:
    """A checkpoint, and how long the log was at it."""
    progress.log_bytes = logger.settle()
    checkpoints.save(state, progress, rank)


def _prefixed(prefix: str, numbers: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in numbers.items()}
