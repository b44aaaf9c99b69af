"""The training loop; there is only this one. A method is a function in `objectives.py`."""

import contextlib
import signal
import threading
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from bie_jax.config.rules import check_config
from bie_jax.config.schema import Config, ConfigError
from bie_jax.config.set_rules import check_components, check_run
from bie_jax.config.stored import check_workdir, save_config
from bie_jax.files import integrity
from bie_jax.files.foreign_text import visible
from bie_jax.input.batches import describe_overlap, describe_split, eval_batches, mixed, train_batches
from bie_jax.input.image_set import open_image_set
from bie_jax.input.mixture import Mixture
from bie_jax.objectives.base import METHODS, build_model
from bie_jax.training import run_files, sharding
from bie_jax.training.checkpoint import Checkpoints, Progress, find_checkpoints
from bie_jax.training.optimizer import build_optimizer
from bie_jax.training.preflight import compile_step, describe_dataset, notes_on_parts, notes_on_scores
from bie_jax.training.state import TrainState, create_train_state, initial_variables
from bie_jax.training.step import build_eval_step, build_train_step
from bie_jax.training.warm_start import given_weights, warm_start
from bie_jax.training.writers.image_pictures import draw_reconstructions
from bie_jax.training.writers.log import MetricLogger
from bie_jax.training.writers.outline_pictures import draw_outlines
from bie_jax.training.writers.trace import StepProfiler
from bie_jax.views import images as augment


class NonFiniteLossError(FloatingPointError):
    """The loss became infinite or NaN; the message names the step and the images of its batch."""


class Interrupted(Exception):
    """SIGTERM or Ctrl-C arrived; the state of the last step is saved and the same command goes on from there.

    Attributes:
        number: of the signal.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.number = number


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
        NonFiniteLossError: see there; checkpoints from before are kept.
        Interrupted: after SIGTERM or Ctrl-C, once the state is saved.
        DamagedFileError: if a file of the workdir is not what was written, before anything is done.
        LockedError: if another process trains in the workdir.
        DiskError: if there is no room; what was saved before is whole.
    """
    workdir = Path(workdir)

    # --- Configuration and data: everything that can be refused is refused before anything is written.
    checked = check_config(config)
    names = (checked.data.name, *checked.data.mix_with)
    mixture = Mixture(tuple(open_image_set(name, checked.data.data_dir) for name in names))
    rows = check_run(checked, mixture)
    check_workdir(checked, workdir)
    with run_files.opened(workdir):
        return _train(checked, mixture, *rows, workdir)


def _train(
    checked: Config, mixture: Mixture, train_rows: list[np.ndarray], val_rows: list[np.ndarray], workdir: Path
) -> dict[str, float]:
    """`train_and_evaluate` in a folder that is held."""
    found = find_checkpoints(workdir)
    dataset = describe_dataset(mixture, workdir, resumes=bool(found.whole))
    for member, image_set in enumerate(mixture.sets):
        sides = (rows - mixture.first_rows[member] for rows in (train_rows[member], val_rows[member]))
        print(f"{image_set.name}: {describe_split(image_set.metadata, *sides)}")
    for note in notes_on_scores(checked, mixture.sets[0], val_rows[0]):
        print(f"scores: {visible(note)}")
    for note in describe_overlap(mixture.metadata, np.concatenate(train_rows), np.concatenate(val_rows)):
        print(note)

    # --- Devices
    mesh = sharding.data_mesh()
    split, everywhere = sharding.split_batch(mesh), sharding.replicated(mesh)

    # --- Model, optimizer, state
    steps_per_epoch = max(sum(map(len, train_rows)) // checked.train.batch_size, checked.train.min_epoch_steps)
    total_steps = (checked.train.epochs + checked.optimizer.cooldown_epochs) * steps_per_epoch
    channels = len(mixture.channel_names)
    method = METHODS[checked.model.name]
    model = build_model(checked, channels)
    blank = jnp.zeros((1, *checked.data.crop_size, channels))
    shapes = jax.eval_shape(lambda key: initial_variables(model, blank, key), jax.random.key(0))
    try:
        tx, schedule = build_optimizer(
            checked.optimizer, shapes["params"], steps_per_epoch=steps_per_epoch, epochs=checked.train.epochs
        )
    except ValueError as error:
        raise ConfigError(f"config.optimizer: {error}") from None
    init = jax.jit(lambda key: create_train_state(checked, model, tx, channels, key), out_shardings=everywhere)
    key = jax.random.key(checked.train.seed)
    readout = jax.eval_shape(lambda of: model.apply(of, blank, train=False, method="encode")[1], shapes)
    check_components(checked.eval.components, readout[checked.eval.readout].shape[-1])
    blank_state = sharding.abstract(jax.eval_shape(init, key), everywhere)
    resumes = bool(found.whole)
    # Weights that do not fit are refused before anything is compiled.
    given = None if resumes else given_weights(sharding.abstract(shapes, everywhere), checked, mixture.channel_names)
    for note in notes_on_parts(checked, has_batch_norm="batch_stats" in shapes):
        print(note)

    # --- Steps
    table = augment.intensity_table(
        dataset["sets"], mixture.channel_names, checked.data.normalization, checked.data.normalization_scope
    )

    def batch_of(batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        shapes = {
            "image": ((*mixture.window, channels), mixture.dtype),
            "plate": ((), np.int32),
            "origin": ((4,), np.int32),
        }
        return {
            name: jax.ShapeDtypeStruct((batch_size, *shape), dtype, sharding=split)
            for name, (shape, dtype) in shapes.items()
        }

    train_step = compile_step(
        build_train_step(checked, model, table, split, everywhere), blank_state, batch_of, checked
    )
    # There is no state yet while the step is held against the memory that is left. One that is loaded below needs no
    # random numbers, which take long to compile.
    state = blank_state if resumes else warm_start(init(key), given)
    eval_step = build_eval_step(checked, model, table, split, everywhere)
    without_sums = jax.jit(lambda window: window.without_sums(), out_shardings=everywhere)
    without_totals = jax.jit(lambda window: window.without_totals(), out_shardings=everywhere)
    plate_of_row = _plate_of_row(mixture, augment.table_rows(dataset["sets"]))
    contrastive = checked.objective.contrastive
    # Nothing else reads the column, and it need not be there.
    origin_of_row = mixture.origins(contrastive.treatment if contrastive.compares_treatments else None)

    def put(batch: dict[str, np.ndarray]) -> dict[str, Any]:
        # Row numbers stay behind for messages; the plate picks the row of the intensity table.
        arrays = {name: array for name, array in batch.items() if name != "row"}
        known = {"plate": plate_of_row[batch["row"]], "origin": origin_of_row[batch["row"]]}
        return sharding.put_batch(arrays | known, split)

    # Each set's in an order of chance: a contrast compares wells, and neighboring rows are of one.
    all_val_rows = np.concatenate([mixed(rows, checked.train.seed) for rows in val_rows])

    def validate(state: TrainState) -> tuple[dict[str, Any], tuple[np.ndarray, np.ndarray]]:
        sums: dict[str, float] = {}
        totals: list[dict[str, np.ndarray]] = []
        pictures: list[tuple[np.ndarray, np.ndarray]] = []
        for batch in eval_batches(mixture, all_val_rows, checked.train.batch_size, checked.data.read_threads):
            metrics, batch_totals, image, reconstruction = jax.device_get(
                eval_step(state.eval_params, state.eval_model_state, put(batch))
            )
            totals.append(batch_totals)
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0.0) + float(value) * float(batch["weight"].sum())
            if not pictures:
                pictures.append((image, reconstruction))
        means = {f"val/{name}": value / len(all_val_rows) for name, value in sums.items()}
        summary = method.summarize(jax.tree.map(lambda *arrays: np.sum(arrays, axis=0), *totals))
        means |= {f"val/{name}": value for name, value in summary.items()}
        if not np.isfinite(means["val/loss"]):
            raise NonFiniteLossError(
                f"the validation loss at step {int(state.step)} is {means['val/loss']}; checkpoints from before it are "
                f"kept in {workdir}"
            )
        shown = slice(min(checked.train.num_reconstructions, len(all_val_rows)))
        return means, (pictures[0][0][shown], pictures[0][1][shown])

    save_config(checked, workdir)
    integrity.write_json(workdir / run_files.DATASET, dataset)
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(workdir, found))
        stop = stack.enter_context(_StopFlag())

        # --- Resume
        progress = Progress()
        if checkpoints.latest_step is not None:
            state, progress = checkpoints.restore(state, checkpoints.latest_step)
        step = saved_step = int(state.step)
        logger = stack.enter_context(
            MetricLogger(workdir, progress.log_bytes, checked.train.wandb, checked.model_dump())
        )
        batches = train_batches(
            mixture,
            train_rows,
            checked.data.mix_weights,
            checked.train.batch_size,
            checked.train.seed,
            step,
            checked.data.read_threads,
        )

        def is_validated(step: int) -> bool:
            return step % (checked.train.eval_every_epochs * steps_per_epoch) == 0 or step == total_steps

        def stops_early(step: int) -> bool:
            # Nothing is known between two validations, and a run that ends after one is saved.
            patience = checked.train.early_stopping_patience_epochs * steps_per_epoch
            return step > 0 and is_validated(step) and 0 < patience <= step - progress.best_step

        def check_finite(step: int, rows: np.ndarray, loss: jax.Array) -> None:
            if not np.isfinite(float(loss)):
                sources = mixture.metadata["source"].iloc[rows].tolist()
                raise NonFiniteLossError(
                    f"the loss of step {step} is {float(loss)}; checkpoints up to step "
                    f"{checkpoints.latest_step or 0} are kept in {workdir}. The images of its batch: "
                    + ", ".join(sources)
                )

        def save(val_loss: float | None) -> None:
            nonlocal saved_step
            progress.log_bytes = logger.settle()
            checkpoints.save(state, progress, val_loss)
            saved_step = step

        # --- Loop
        bar = tqdm(
            total=total_steps * checked.train.batch_size,
            initial=step * checked.train.batch_size,
            desc=f"train {workdir.name}",
            unit="image",
            unit_scale=True,
            mininterval=1.0,
        )
        stopwatch = _Stopwatch()
        profiler = stack.enter_context(StepProfiler(workdir, checked.train.profile_steps))
        unchecked: tuple[int, np.ndarray, jax.Array] | None = None
        with bar:
            while step < total_steps and not stops_early(step):
                try:
                    batch = next(batches)
                except Exception:  # an image that cannot be read costs nothing of what was learnt before it
                    if unchecked is not None:
                        check_finite(*unchecked)
                    if step > saved_step:
                        save(None)
                    raise
                profiler.before_step()
                state, loss = train_step(state, put(batch))
                profiler.after_step(loss)
                step += 1
                # One step behind, so that the device has the next step to do while the host looks at this one.
                if unchecked is not None:
                    check_finite(*unchecked)
                unchecked = (step, batch["row"], loss)
                bar.update(checked.train.batch_size)
                stopwatch.add(checked.train.batch_size)

                logs = step % checked.train.log_every_steps == 0
                validates = is_validated(step)
                saves = step % checked.train.checkpoint_every_steps == 0
                if not (logs or validates or saves or stop.signal):
                    continue
                # Whatever is written from here on must not be poisoned.
                check_finite(*unchecked)
                unchecked = None
                epoch = step / steps_per_epoch
                if logs:
                    window = jax.device_get(state.window)
                    means = {f"train/{name}": float(value / window.steps) for name, value in window.sums.items()}
                    rates = {
                        "optimizer/lr": float(np.asarray(schedule(step - 1))),
                        "perf/images_per_s": stopwatch.rate(),
                    }
                    logger.write(step, epoch, means | rates)
                    bar.set_postfix(loss=f"{means['train/loss']:.4g}", refresh=False)
                    state = state.replace(window=without_sums(state.window))
                val_loss = None
                if validates:
                    stopwatch.pause()
                    metrics, pictures = validate(state)
                    summary = method.summarize(jax.device_get(state.window.totals))
                    metrics |= {f"train/{name}": value for name, value in summary.items()}
                    state = state.replace(window=without_totals(state.window))
                    logger.write(step, epoch, metrics)
                    val_loss = metrics["val/loss"]
                    if val_loss < progress.best_val_loss:
                        progress.best_val_loss, progress.best_step = val_loss, step
                    logger.write_picture(step, _draw(pictures, mixture, workdir, step))
                if validates or saves or stop.signal:
                    save(val_loss)
                if stop.signal:
                    name = signal.Signals(stop.signal).name
                    raise Interrupted(
                        f"stopped by {name} at step {step} of {total_steps}; the same command goes on", stop.signal
                    )
                stopwatch.resume()
    return {"step": progress.best_step, "val/loss": progress.best_val_loss}


def _plate_of_row(mixture: Mixture, table_rows: dict[tuple[str, str], int]) -> np.ndarray:
    """[N] int32: row of the intensity table for each image."""
    keys = zip(mixture.metadata["set"], mixture.metadata["plate"], strict=True)
    return np.asarray([table_rows[key] for key in keys], np.int32)


def _draw(pictures: tuple[np.ndarray, np.ndarray], mixture: Mixture, workdir: Path, step: int) -> Path:
    path = workdir / "reconstructions" / f"step_{step:08d}.png"
    simulated = " (simulated)" if any(image_set.simulated for image_set in mixture.sets) else ""
    kind = mixture.sets[0].kind
    title = f"{mixture.name}{simulated}: validation {kind} at step {step}"
    if kind == "shapes":
        d, d_hat = pictures
        draw_outlines(d[..., 0], d_hat[..., 0], title, path)
        return path
    # The pictures are of the first set, whose images come first.
    draw_reconstructions(*pictures, mixture.channel_names, mixture.sets[0].pixel_size_um, title, path)
    return path


class _Stopwatch:
    """Images per second of training alone: compiling, validating and saving do not count."""

    def __init__(self):
        self._images, self._seconds, self._started = 0, 0.0, None

    def add(self, images: int) -> None:
        if self._started is None:  # the first step compiles; the clock starts after it
            self._started = time.perf_counter()
        else:
            self._images += images

    def pause(self) -> None:
        if self._started is not None:
            self._seconds += time.perf_counter() - self._started
            self._started = time.perf_counter()

    def resume(self) -> None:
        if self._started is not None:
            self._started = time.perf_counter()

    def rate(self) -> float:
        self.pause()
        rate = self._images / self._seconds if self._seconds else 0.0
        self._images, self._seconds = 0, 0.0
        return rate


class _StopFlag:
    """Remembers SIGTERM or Ctrl-C instead of dying of it, while a run can still save; a second one ends it at once.

    Attributes:
        signal: number of the signal that came; 0 before one does.
    """

    def __init__(self):
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_StopFlag":
        # Python takes signals in the main thread only; a run started from another one dies of them as usual.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._remember)
        return self

    def _remember(self, number: int, frame: object) -> None:
        del frame
        self.signal = number
        self.__exit__()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
