"""The configuration of a run's folder, `config.json`: writing it, holding another against it, reading it again."""

import fnmatch
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from bie_jax.config.rules import check_config
from bie_jax.config.schema import Config, ConfigError
from bie_jax.files import integrity
from bie_jax.files.foreign_text import visible

CONFIG = "config.json"
# Pictures of random views may lie there before there is a run (`training.preview`).
PREVIEWS = "views*.png"
# Keys that runs begun before did not have, and what those runs did: they go on as they began. Groups of which they read
# nothing hold what they would not read either.
_ADDED = {
    "model.cpu_kernels": True,
    "model.resnet.width": 64,
    "model.resnet.stem": "large",
    "model.head": {"width": 512, "depth": 3, "output_dim": 128, "num_prototypes": 1024},
    "objective.crops": {"num_global": 2, "num_local": 0, "local_size": [16, 16], "local_area": [0.0, 0.0]},
    "objective.simclr": {"temperature": 0.2},
    "objective.dino": {
        "student_temperature": 0.1,
        "teacher_temperature": 0.04,
        "teacher_temperature_start": 0.04,
        "teacher_temperature_steps": 0,
        "targets": "center",
        "center_momentum": 0.9,
        "koleo": 0.0,
        "frozen_prototype_steps": 0,
    },
    "objective.lejepa": {"sigreg": 0.85, "num_slices": 256},
    "optimizer.weight_decay_growth": 1.0,
    "train.ema_decay_grows": False,
    "train.stop_at_collapse": False,
    "train.mesh": {"data": -1, "fsdp": 1, "tensor": 1},
    "data.positives": "same_image",
    "data.treatment": "label",
    "data.stratify_by": "",
    "data.held_out": [],
    "data.held_out_by": "plate",
    "data.augment.area": [0.0, 0.0],
    "data.augment.aspect": 1.0,
    "data.augment.rotate": False,
    "data.augment.offset": 0.0,
    "data.augment.gamma": 0.0,
    "data.augment.blur": 0.0,
    "data.augment.noise": 0.0,
    "data.augment.channel_dropout": 0.0,
    "eval.most_images": 10_000,
    "eval.most_queries": 5000,
    "eval.cell_count_channel": "",
    "eval.cell_count_column": "",
    "eval.profile": {
        "treatment": [],
        "mechanism": "",
        "compound": "",
        "concentration": "",
        "batch": ["plate"],
        "replicates_differ_in": [],
        "well_statistic": "mean",
        "treatment_statistic": "median",
        "steps": ["normalize", "select"],
        "normalize": {"method": "standardize", "scope": ["plate"], "rows": "controls"},
        "components": 32,
        "select": {"min_variance": 0.0, "max_correlation": 0.9, "max_absolute": 1e6},
        "sphere": {"rotation": "ZCA", "epsilon": 1e-6, "few_controls": "fill"},
        "tvn_regularization": 0.5,
        "null_size": 1000,
    },
    "eval.published": "",
    "eval.published_channels": "concatenate",
    "eval.published_components": 0,
}
_RESTORE = "restore it from a copy"

# Keys that may differ between two runs of one workdir: where things lie and how they are scored, not what is trained.
_FREE_KEYS = (
    "data.data_dir",
    "data.read_threads",
    "train.wandb",
    "train.profile_steps",
    "train.mesh.data",
    "train.mesh.fsdp",
    "train.mesh.tensor",
)


def check_workdir(config: Config, workdir: Path) -> None:
    """Hold the configuration against the one that a workdir was made by, if it was made by any.

    The `eval` group may change between calls, and so may keys that say only where things lie.

    Raises:
        ConfigError: naming every key that differs; or if the folder holds something, and that is no run.
    """
    _check_is_of_a_run(workdir)
    if not (workdir / CONFIG).exists():
        return
    stored, before, now = flatten(_stored(workdir)), flatten(_read(workdir)), flatten(config.model_dump(mode="json"))
    differing = [
        f"config.{key}: the workdir has {before.get(key, 'no such key')!r}, this run {now.get(key, 'no such key')!r}"
        + ("" if key in stored or key not in before else f", which goes on with --config.{key}={before[key]!r}")
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith("eval.") and key not in _FREE_KEYS
    ]
    if differing:
        raise ConfigError(
            f"{workdir} was made by another configuration; choose another --workdir, or remove that one:\n"
            + "\n".join(differing)
        )


def save_config(config: Config, workdir: Path) -> None:
    """Write `config.json`.

    Raises:
        ConfigError: if the workdir was made by another configuration; nothing is overwritten.
    """
    check_workdir(config, workdir)
    integrity.write_json(workdir / CONFIG, config.model_dump(mode="json"))


def load_config(workdir: Path) -> Config:
    """The configuration that made a workdir.

    Raises:
        ConfigError: if there is none, or if it is of another version of this program.
        DamagedFileError: if it is not what was written.
    """
    stored = ConfigDict(_read(Path(workdir)))
    try:
        return check_config(stored)
    except ConfigError as error:
        raise ConfigError(
            f"{Path(workdir) / CONFIG} is not of this version; give the configuration too (--config=FILE) to "
            f"have its eval group written anew:\n{error}"
        ) from None


def check_trained(workdir: Path) -> None:
    """Raise ConfigError unless a run was begun in a folder, by whatever version of this program."""
    if not (workdir / CONFIG).is_file():
        raise ConfigError(f"{workdir} holds no {CONFIG}: nothing was trained there")


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested groups as one table: "model.latent_dim" -> value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _check_is_of_a_run(workdir: Path) -> None:
    """A folder is a run's if it is not there yet, empty, or holds config.json; hidden files do not count."""
    for path in (workdir, *workdir.parents):
        if path.exists() and not path.is_dir():
            raise ConfigError(f"--workdir={workdir}: {path} is a file; a run needs a folder of its own")
    if not workdir.is_dir() or (workdir / CONFIG).is_file():
        return
    others = sorted(path.name for path in workdir.iterdir() if not path.name.startswith("."))
    others = [name for name in others if name != integrity.CHECKSUMS]  # a kill while the first file was written
    others = [name for name in others if not fnmatch.fnmatch(name, PREVIEWS)]
    left = [name for name in ("checkpoints", "dataset.json", "metrics.jsonl") if name in others]
    if left:
        raise ConfigError(
            f"{workdir / CONFIG} is missing beside {', '.join(left)} of a run: {_RESTORE}, or choose another --workdir"
        )
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise ConfigError(
            f"--workdir={workdir}: the folder holds other things than a run ({visible(', '.join(others[:3]))}{more}); "
            "choose one that is empty or not there yet, e.g. --workdir=runs/first"
        )


def _read(workdir: Path) -> dict[str, Any]:
    """What is stored, with what was added since."""
    content = _stored(workdir)
    for path, value in _ADDED.items():
        _add(content, path.split("."), value)
    return content


def _stored(workdir: Path) -> dict[str, Any]:
    check_trained(workdir)
    content = integrity.read_json(workdir / CONFIG, _RESTORE)
    if not set(Config.model_fields) <= content.keys():
        raise ConfigError(f"{workdir / CONFIG} is not of a run: expected the groups {', '.join(Config.model_fields)}")
    return content


def _add(content: dict[str, Any], path: list[str], value: Any) -> None:
    """Put a value where there is none; a group that is missing, or is none, the schema refuses."""
    *groups, key = path
    for name in groups:
        content = content.get(name)  # pyright: ignore[reportAssignmentType]
        if not isinstance(content, dict):
            return
    content.setdefault(key, value)
