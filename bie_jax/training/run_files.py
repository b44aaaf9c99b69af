"""The files of a run's folder: what each is called, what to do about one that is damaged, and what it was made from."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bie_jax.config.schema import Config
from bie_jax.config.stored import CONFIG
from bie_jax.files import integrity
from bie_jax.files.integrity import MadeFrom
from bie_jax.files.lock import locked
from bie_jax.input.image_set import ImageSet
from bie_jax.training import processes
from bie_jax.training.checkpoint import best_step, checkpoint_fingerprint, seal_old_checkpoints
from bie_jax.training.writers.log import LOG

DATASET = "dataset.json"
EMBEDDINGS, EMBEDDINGS_H5AD = "embeddings.parquet", "embeddings.h5ad"
RECONSTRUCTIONS, CODEBOOK, COMPONENTS = "reconstructions.npz", "codebook.npz", "components.npz"
PUBLISHED = "published.npz"
WELL_PROFILES, TREATMENT_PROFILES = "profiles_wells", "profiles_treatments"  # each .parquet and .h5ad
SCORES, SCORES_TABLE = "scores.json", "scores.parquet"

EMBED_AGAIN = "run the same command with --stage=embed"
EVALUATE_AGAIN = "run the same command with --stage=evaluate"
RESTORE_LOG = "restore it from a copy, or remove it, and the report shows no curves"
_RESTORE_DATASET = "restore it from a copy; it says which set and which intensities the run was trained on"
_ALL = (
    CONFIG,
    DATASET,
    EMBEDDINGS,
    EMBEDDINGS_H5AD,
    RECONSTRUCTIONS,
    CODEBOOK,
    COMPONENTS,
    SCORES,
    SCORES_TABLE,
    "wandb_run_id",
)


def of_set(file: str, name: str) -> str:
    """The name of a file that a set has which the run was not trained on: "embeddings-plate7.parquet"."""
    stem, dot, suffix = file.partition(".")
    return f"{stem}-{name}{dot}{suffix}"


def parts_of(file: str) -> str:
    """The folder in which a file comes about: "embeddings.parts"."""
    return f"{file.rpartition('.')[0]}.parts"


@contextlib.contextmanager
def opened(workdir: Path) -> Iterator[None]:
    """Hold a run's folder for writing, against every other process but those that train the run together.

    Raises:
        LockedError: if another process holds it; the message names it.
        DiskError: if the folder cannot be written to.
    """
    if not processes.is_first():
        yield
        return
    with locked(workdir / ".lock"):
        for left_over in workdir.glob(f"{integrity.PARTIAL}*"):
            left_over.unlink()
        if not (workdir / integrity.CHECKSUMS).exists():
            seal_old_checkpoints(workdir)
            integrity.adopt(workdir, _ALL, logs=(LOG,))
        yield


def read_dataset(workdir: Path) -> dict[str, Any]:
    """What a run knows of its sets: `channel_names` and `sets`; raises DamagedFileError."""
    return integrity.read_json(workdir / DATASET, _RESTORE_DATASET)


def origin_of_network(workdir: Path, config: Config) -> MadeFrom:
    """What an embedding depends on, beside its images."""
    step = best_step(workdir)
    return {
        "the checkpoint": f"{step} {checkpoint_fingerprint(workdir, step)}".strip(),
        "config.eval.readout": config.eval.readout,
        "config.eval.components": str(config.num_components),
        "config.eval.image_size": str(tuple(config.eval.image_size)),
    }


def origin_of_embeddings(workdir: Path, config: Config, image_set: ImageSet) -> MadeFrom:
    """What the embeddings of a run depend on."""
    return {
        f"the set {image_set.name}": image_set.fingerprint,
        "config.eval.append": str(tuple(config.eval.append)),
        **origin_of_network(workdir, config),
    }


def check_same_set(workdir: Path, image_set: ImageSet) -> None:
    """Refuse a set that was built again, to something else, since the run was trained on it.

    Raises:
        StaleFileError: naming both.
    """
    known = {described["name"]: described for described in read_dataset(workdir)["sets"]}
    before = known[image_set.name].get("fingerprint", "")
    if before != image_set.fingerprint:
        raise integrity.StaleFileError(
            f"{image_set.directory} is not the set that {workdir} was trained on (its fingerprint was "
            f"{before or 'not known yet'}, it is {image_set.fingerprint or 'not known'} now): put the former back, or "
            "train on this one in another --workdir"
        )
