"""What a training step will see, drawn before anything is trained: random views beside the one of the evaluation."""

from pathlib import Path

import jax
import numpy as np

from bie_jax.config.schema import Config, DataConfig
from bie_jax.config.set_rules import check_run
from bie_jax.config.stored import check_workdir
from bie_jax.input.mixture import Mixture, open_mixture
from bie_jax.objectives import METHODS
from bie_jax.training import run_files
from bie_jax.training.writers.view_pictures import draw_views_of
from bie_jax.views.intensities import IntensityTable, intensity_table, table_rows
from bie_jax.views.kinds import VIEWS

_EXAMPLES, _VIEWS = 8, 16


def draw_views(config: Config, workdir: Path) -> list[Path]:
    """Draw sixteen random views of eight examples that will be trained on, each row beside its evaluation's view.

    A method's further views (`Method.other_views`) have pictures of their own, where they are made otherwise.

    Args:
        config: checked.
        workdir: where the pictures go, `views.png`, `views_2.png`, ...; a run may lie there or begin there later.

    Returns:
        Where the pictures lie.

    Raises:
        ConfigError: for a configuration that cannot be trained, or a workdir of another one.
        SetNotBuiltError: if the set is not built.
        LockedError: if another process works in the workdir.
        DiskError: if there is no room.
    """
    mixture = open_mixture(config.data)
    train_rows, _ = check_run(config, mixture)
    check_workdir(config, workdir)
    rng = np.random.default_rng(config.train.seed)
    known = np.concatenate(train_rows)
    rows = np.sort(rng.choice(known, min(_EXAMPLES, len(known)), replace=False))
    sets = [image_set.intensities for image_set in mixture.sets]
    table = intensity_table(sets, mixture.channel_names, config.data.normalization, config.data.normalization_scope)
    paths = []
    with run_files.opened(workdir):
        for number, data in enumerate(_kinds_of_views(config), start=1):
            path = workdir / ("views.png" if number == 1 else f"views_{number}.png")
            evaluated, views = _views(mixture, rows, sets, table, data, config.train.seed)
            draw_views_of(evaluated, views, mixture, data, rows, path)
            paths.append(path)
    return paths


def _kinds_of_views(config: Config) -> list[DataConfig]:
    """The first view's `data` group, and those of further views that differ from it and from each other."""
    kinds = [config.data]
    for data in METHODS[config.model.name].other_views(config):
        if data not in kinds:
            kinds.append(data)
    return kinds


def _views(
    mixture: Mixture, rows: np.ndarray, sets: list, table: IntensityTable, data: DataConfig, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """The evaluation's views of some rows [N, H, W, C], and random ones [V, N, H, W, C]."""
    numbers, metadata = table_rows(sets), mixture.metadata.iloc[rows]
    plate = np.asarray([numbers[key] for key in zip(metadata["set"], metadata["plate"], strict=True)], np.int32)
    image = mixture.images(rows, None)
    views = VIEWS[data.kind]
    evaluate = jax.jit(lambda image, plate: views.evaluate(image, plate, table, data.crop_size, data))
    draw = jax.jit(lambda key, image, plate: views.train(key, image, plate, table, data))
    keys = [jax.random.fold_in(jax.random.key(seed), number) for number in range(_VIEWS)]
    return np.asarray(evaluate(image, plate)), np.stack([np.asarray(draw(key, image, plate)) for key in keys])
