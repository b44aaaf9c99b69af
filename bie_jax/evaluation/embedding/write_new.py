"""The embedding of a set that a run was not trained on, in files of its own beside the run's."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bie_jax.config.schema import Config, ConfigError
from bie_jax.config.stored import load_config
from bie_jax.evaluation.embedding.embedder import Embedder
from bie_jax.evaluation.embedding.inputs import INPUTS
from bie_jax.evaluation.embedding.load import load
from bie_jax.evaluation.embedding.normalization import FEW_IMAGES, Controls, Normalization, of_set, trained_like
from bie_jax.evaluation.embedding.parts import Parts
from bie_jax.evaluation.embedding.whole_set import embed_and_count
from bie_jax.evaluation.embedding.write import table_of, write_table
from bie_jax.files import integrity
from bie_jax.files.foreign_text import visible
from bie_jax.input.channels_by_name import channels_for
from bie_jax.input.columns import NEW, embedding_columns
from bie_jax.input.covariates import check_known
from bie_jax.input.image_set import ImageSet
from bie_jax.input.splits import sides_of, split_image_set
from bie_jax.training import processes, run_files


def write_new_embeddings(
    workdir: str | Path, image_set: ImageSet, channels: Mapping[str, str], controls: Controls | None
) -> pd.DataFrame:
    """Embed a set that a run was not trained on, beside the run's own embeddings.

    Writes `embeddings-NAME.parquet` and `.h5ad` with the columns that the run's own table has; `Metadata_split` is
    "new", unless it is a set of the run. Says what is done to the images, and whose intensities they are normalized by;
    the files say it too, in their attribute (`uns`) `normalized_by`. What was done before a kill is gone on with.

    Args:
        workdir: of the run.
        image_set: as it was opened.
        channels: of the set, in any order -> as training calls them; what the run does not know is left out.
        controls: whose intensities stand for their plate's; None: all images'.

    Returns:
        The table as in the parquet file.

    Raises:
        ConfigError, StaleFileError: if the set does not suit the run, or the run has no components yet; before the
            network is loaded.
        NonFiniteRowsError: for rows that hold NaN or infinity.
        Interrupted: after SIGTERM or Ctrl-C.
    """
    workdir = Path(workdir)
    config, dataset = load_config(workdir), run_files.read_dataset(workdir)
    if image_set.kind != config.data.kind:
        raise ConfigError(
            f"{image_set.name!r} is a set of {image_set.kind}, and {workdir} was trained on {config.data.kind}"
        )
    chosen = channels_for(f"the set {image_set.name!r}", channels, dataset)
    left_out = [name for name in image_set.channel_names if name not in chosen]
    if left_out or list(chosen) != list(chosen.values()):
        image_set = image_set.with_channels(chosen)
    trained = _check(workdir, config, dataset, image_set)
    used = of_set(image_set, trained, config.data, controls)
    with run_files.opened(workdir):
        if left_out:
            print(f"{image_set.name}: the run has no channel {visible(', '.join(left_out))}, which is left out")
        for note in [*_notes(config, trained, image_set), *_told(used)]:
            print(f"{image_set.name}: {visible(note)}")
        return _write(workdir, config, dataset, load(workdir).normalizing_by(used, image_set), image_set)


def _write(
    workdir: Path, config: Config, dataset: dict[str, Any], embedder: Embedder, image_set: ImageSet
) -> pd.DataFrame:
    told = json.dumps(embedder.normalized_by, ensure_ascii=False)
    made_from = {
        **run_files.origin_of_embeddings(workdir, config, image_set),
        "the channels": ", ".join(image_set.channel_names),
        "the normalization": told,
    }
    parquet, h5ad = (
        run_files.of_set(file, image_set.name) for file in (run_files.EMBEDDINGS, run_files.EMBEDDINGS_H5AD)
    )
    parts = Parts(workdir / run_files.parts_of(parquet), made_from)
    features, _ = embed_and_count(embedder, image_set, parts)
    sides = np.full(len(image_set), NEW)
    if image_set.fingerprint and image_set.fingerprint in [one.get("fingerprint") for one in dataset["sets"]]:
        sides = sides_of(*split_image_set(config, image_set), len(image_set))
    table = table_of(embedder, image_set, features, config, sides)
    if processes.is_first():
        write_table(workdir, parquet, h5ad, table, made_from, {"normalized_by": told})
        print(f"embeddings: {visible((workdir / parquet).absolute())}")
    parts.remove()
    return table


def _check(workdir: Path, config: Config, dataset: dict[str, Any], image_set: ImageSet) -> dict[str, Any]:
    """The training set that has the channels of a set; raises ConfigError for a set that the run cannot embed."""
    try:
        blank = np.empty((0, *image_set.image_shape), image_set.dtype)
        INPUTS[config.data.kind].check(blank, config.data)
        INPUTS[config.data.kind].size(*image_set.image_shape[:2], config)
    except ValueError as error:
        raise ConfigError(f"the set {image_set.name!r}: {error}") from None
    embedding_columns(image_set.metadata)
    check_known(image_set, config.eval.append)
    if config.num_components:
        integrity.verify(
            workdir / run_files.COMPONENTS,
            f"components are fitted to the run's own set first: python launch.py --workdir={workdir} --stage=embed",
            run_files.origin_of_network(workdir, config),
        )
    trained = trained_like(dataset["sets"], image_set)
    assert trained is not None  # its channels were looked at
    return trained


def _notes(config: Config, trained: dict[str, Any], image_set: ImageSet) -> list[str]:
    """In what the images differ from those of training, where that matters: a sentence each."""
    notes = []
    size, before = image_set.image_shape[:2], tuple(trained["image_shape"][:2])
    if config.data.kind == "images" and size != before:
        height, width = INPUTS["images"].size(*size, config)
        notes.append(
            f"its images are {size[0]} x {size[1]} pixels, {trained['name']} has {before[0]} x {before[1]}; looked at "
            f"are the middle {height} x {width}"
        )
    ours, theirs = image_set.pixel_size_um, trained["pixel_size_um"]
    if ours is not None and theirs is not None:
        if not np.isclose(ours, theirs, rtol=0.01):
            notes.append(
                f"its pixels are {ours:.4g} um, those of {trained['name']} {theirs:.4g}: everything looks "
                f"{theirs / ours:.3g} times as large to the network as in training, and nothing corrects that"
            )
    elif ours != theirs:
        unknown = image_set.name if ours is None else trained["name"]
        notes.append(f"the pixel size of {unknown} is not known, so whether it is that of training is not either")
    if config.data.kind == "images" and config.data.normalization_scope == "set":
        notes.append(_how_far(image_set, trained))
    return notes


def _how_far(image_set: ImageSet, trained: dict[str, Any]) -> str:
    """How the intensities of a set differ from those of training, which it is normalized by."""
    told = []
    for name, mean, std in zip(
        image_set.channel_names,
        image_set.statistics["overall"]["mean"],
        image_set.statistics["overall"]["std"],
        strict=True,
    ):
        place = trained["channel_names"].index(name)
        center, width = (trained["overall"][key][place] for key in ("mean", "std"))
        told.append(f"{name} {(mean - center) / width:+.2f}, {std / width:.2f}" if width else f"{name} was constant")
    return (
        f"as training was normalized over the whole set, its intensities are; its mean from that of {trained['name']} "
        f"in standard deviations of that, and its standard deviation over that: {'; '.join(told)}"
    )


def _told(used: Normalization) -> list[str]:
    """By whose intensities plates are normalized: a sentence, and one for plates that say little."""
    told = [f"{plate or 'no plate'}: {by}" for plate, by in used.told.items()]
    if len(set(used.told.values())) == 1:
        told = [next(iter(used.told.values()))]
    more = f"; and so on, {len(told)} plates" if len(told) > 3 else ""
    notes = [f"normalized by {'; '.join(told[:3])}{more}"]
    few = [plate for plate, count in used.counts.items() if count < FEW_IMAGES]
    if few:
        more = f" and {len(few) - 6} more" if len(few) > 6 else ""
        notes.append(
            f"intensities of fewer than {FEW_IMAGES} images stand for {', '.join(map(repr, few[:6]))}{more}: they say "
            "more of these images than of their plate"
        )
    return notes
