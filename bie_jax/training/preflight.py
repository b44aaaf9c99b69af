"""Before the first step: whether it fits into memory, whether the sets are what they were, and what a run is told.

Whether the configuration suits itself, the sets and the devices is asked before (`config.rules`, `config.set_rules`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from bie_jax.config.schema import Config, ConfigError
from bie_jax.files import integrity
from bie_jax.input.mixture import Mixture
from bie_jax.models import supports_remat
from bie_jax.objectives import METHODS
from bie_jax.training import run_files
from bie_jax.training.memory import OutOfMemoryError, available_bytes, check_fits, gibibytes, step_bytes
from bie_jax.training.sharding import Layout


def notes_on_microbatches(config: Config, *, has_batch_norm: bool) -> list[str]:
    """In what a batch that is computed in microbatches (`train.accumulate_steps`) is not one large batch."""
    count = config.train.accumulate_steps
    if count == 1:
        return []
    statistics = ("batch normalization takes its statistics",) if has_batch_norm else ()
    return [
        f"config.train.accumulate_steps={count}: {what} from {config.train.batch_size // count} images, not from all "
        f"{config.train.batch_size} of a batch"
        for what in (*statistics, *METHODS[config.model.name].across_images(config))
    ]


def describe_dataset(mixture: Mixture, workdir: Path, resumes: bool) -> dict[str, Any]:
    """What an embedder must know of the sets: channels, pixel size, intensities.

    Args:
        mixture: the sets.
        workdir: of the run.
        resumes: whether there is a checkpoint, beside which `dataset.json` must be.

    Returns:
        What `dataset.json` of the workdir holds or will hold: `channel_names` of all sets, and `sets`, one description
        each.

    Raises:
        ConfigError: if the workdir was trained on other pixels of the same name.
        DamagedFileError: if `dataset.json` is not what was written.
    """
    sets = [
        integrity.read_json(image_set.directory / "statistics.json", "build the set again")
        | {"name": image_set.name, "directory": str(image_set.directory)}
        for image_set in mixture.sets
    ]
    if resumes or (workdir / run_files.DATASET).exists():
        for described, before in zip(sets, run_files.read_dataset(workdir)["sets"], strict=True):
            changed = [key for key in described if key != "directory" and described[key] != before.get(key)]
            if changed:
                raise ConfigError(
                    f"{described['directory']} is not the set that {workdir} was trained on ({', '.join(changed)} "
                    "differ): choose another --workdir"
                )
    return {"channel_names": list(mixture.channel_names), "sets": sets}


def compile_step(compile_under: Callable[[Layout, int], Any], layout: Layout, config: Config) -> Callable[..., Any]:
    """The compiled training step, once it is known to fit into memory.

    Args:
        compile_under: (layout, global batch size) -> compiled step.
        layout: of the run.
        config: the checked configuration.

    Raises:
        ConfigError: naming the memory needed, the memory there is, the largest batch that fits and a mesh that does.
    """
    available = available_bytes(jax.local_devices()[0])
    try:
        return check_fits(
            lambda batch_size: compile_under(layout, batch_size),
            config.train.batch_size,
            shares=layout.shares,
            parts=config.train.accumulate_steps,
            available=available,
        )
    except OutOfMemoryError as error:
        smaller = ["config.train.accumulate_steps", "config.train.compute_dtype='bfloat16'"]
        if supports_remat(config.model):
            smaller.append("config.train.remat")
        raise ConfigError(
            f"config.train.batch_size: {error}; {', '.join(smaller)} make it less"
            + _what_more_parts_need(compile_under, layout, config.train.batch_size, available)
        ) from None


def _what_more_parts_need(
    compile_under: Callable[[Layout, int], Any], layout: Layout, batch_size: int, available: int
) -> str:
    """Whether a step fits with the state in as many parts as can be, as the end of a sentence."""
    if layout.mesh.shape["data"] == 1:
        return ""
    parts = layout.with_state_in_parts()
    needed = step_bytes(compile_under(parts, batch_size))
    fits = "which fits" if needed <= available else "which does not fit either"
    return (
        f"; with the state shared by all devices, config.train.mesh.data=1 and config.train.mesh.fsdp="
        f"{parts.mesh.shape['fsdp']}, it needs {gibibytes(needed)} on each, {fits}"
    )
