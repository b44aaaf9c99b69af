"""The files of the embed stage: one row of features per image, and what the report shows beside them."""

import io
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd

from bie_jax.config.schema import Config
from bie_jax.config.stored import load_config
from bie_jax.evaluation.embedding.code_use import CodeUse
from bie_jax.evaluation.embedding.components import Components
from bie_jax.evaluation.embedding.decoder import has_decoder
from bie_jax.evaluation.embedding.embedder import Embedder
from bie_jax.evaluation.embedding.load import load_readout
from bie_jax.evaluation.embedding.parts import Parts
from bie_jax.evaluation.embedding.whole_set import embed_and_count
from bie_jax.files import integrity
from bie_jax.files.integrity import MadeFrom
from bie_jax.input.columns import SPLIT, embedding_columns, h5ad_name
from bie_jax.input.covariates import known_numbers
from bie_jax.input.image_set import ImageSet, open_image_set
from bie_jax.input.pixels import check_finite_rows
from bie_jax.input.splits import sides_of, split_image_set
from bie_jax.objectives import METHODS
from bie_jax.training import processes, run_files


def files_beside(config: Config) -> list[str]:
    """What the embed stage leaves of a run beside the tables, for the report."""
    reconstructions = [run_files.RECONSTRUCTIONS] if has_decoder(config) else []
    return reconstructions + [run_files.CODEBOOK] * METHODS[config.model.name].has_codes


def write_embeddings(workdir: str | Path) -> pd.DataFrame:
    """Embed the set that a workdir was trained on; the numbers of `eval.append` stand behind the embedding.

    Writes `embeddings.parquet` (`Metadata_*`, then `<model>_0000` ...), `embeddings.h5ad`, of a method with a decoder
    `reconstructions.npz` (validation images) and, for a VQ-VAE, `codebook.npz`, each whole or not at all. What was
    embedded before a kill lies in `embeddings.parts` and is gone on with.

    Returns:
        The table as in the parquet file.

    Raises:
        Interrupted: after SIGTERM or Ctrl-C, once what is embedded is on disk.
    """
    workdir = Path(workdir)
    config = load_config(workdir)
    with run_files.opened(workdir):
        return _write_embeddings(workdir, config)


def _write_embeddings(workdir: Path, config: Config) -> pd.DataFrame:
    embedder = load_readout(workdir)
    image_set = open_image_set(config.data.name, config.data.data_dir)
    run_files.check_same_set(workdir, image_set)
    made_from = run_files.origin_of_embeddings(workdir, config, image_set)
    parts = Parts(workdir / run_files.parts_of(run_files.EMBEDDINGS), made_from)
    features, code_use = embed_and_count(embedder, image_set, parts)

    train_rows, val_rows = split_image_set(config, image_set)
    if config.num_components:
        components = Components.fit(features[train_rows], config.num_components)
        if processes.is_first():
            components.save(workdir, made_from)
        features = components(features)
    table = table_of(embedder, image_set, features, config, sides_of(train_rows, val_rows, len(image_set)))
    drawn = None
    if has_decoder(config):
        drawn = _reconstructions(embedder, image_set, val_rows, config.train.num_reconstructions)
    if processes.is_first():
        write_table(workdir, run_files.EMBEDDINGS, run_files.EMBEDDINGS_H5AD, table, made_from, {})
        if drawn is not None:
            _write_npz(workdir / run_files.RECONSTRUCTIONS, made_from, **drawn)
        if code_use is not None:
            _write_codebook(workdir, code_use, made_from)
    parts.remove()
    return table


def table_of(
    embedder: Embedder, image_set: ImageSet, features: np.ndarray, config: Config, sides: np.ndarray
) -> pd.DataFrame:
    """What is known of each image, then its features, and behind them the numbers of `eval.append`.

    Args:
        embedder: whose features they are.
        image_set: of N images.
        features: [N, D] float32.
        config: of the run.
        sides: [N] str, for the column `Metadata_split`.

    Raises:
        NonFiniteRowsError: for a row that holds NaN or infinity.
    """
    features = np.concatenate([features, known_numbers(image_set, config.eval.append)], axis=1)
    check_finite_rows(features, "the embedding with what is appended to it", image_set.metadata["source"])
    metadata = embedding_columns(image_set.metadata)
    metadata[SPLIT] = sides
    names = pd.Index([f"{embedder.model_name}_{i:04d}" for i in range(features.shape[1])])
    return pd.concat([metadata, pd.DataFrame(features, columns=names)], axis=1)


def write_table(
    workdir: Path, parquet: str, h5ad: str, table: pd.DataFrame, made_from: MadeFrom, told: dict[str, str]
) -> None:
    """A table of `table_of` under two names.

    Args:
        workdir: of the run.
        parquet: name of one file.
        h5ad: name of the other.
        table: what is written.
        made_from: what it was made from; in both files too, for who finds them elsewhere.
        told: what else both say of themselves, by name.
    """
    said = {"made_from": made_from, **told}
    table.attrs |= said
    content = io.BytesIO()
    table.to_parquet(content, index=False)
    integrity.write_bytes(workdir / parquet, content.getvalue(), made_from)
    is_metadata = [str(name).startswith("Metadata_") for name in table.columns]
    metadata, features = table.loc[:, is_metadata], table.loc[:, [not known for known in is_metadata]]
    obs = metadata.rename(columns=h5ad_name).set_index(pd.Index([str(i) for i in range(len(metadata))]))
    data = anndata.AnnData(X=features.to_numpy(np.float32), obs=obs, var=pd.DataFrame(index=features.columns), uns=said)
    needed = features.size * 4 + int(metadata.memory_usage(deep=True).sum())
    integrity.write_file(workdir / h5ad, data.write_h5ad, needed, made_from)


def _reconstructions(embedder: Embedder, image_set: ImageSet, rows: np.ndarray, most: int) -> dict[str, np.ndarray]:
    """The first of some rows, as the network sees them and as its decoder draws them."""
    shown = np.resize(rows, embedder.batch_of(len(image_set)))  # of a batch's shape, as it is compiled
    share = shown[embedder.share(len(shown))]
    image, reconstruction = embedder.reconstruct_batch(
        embedder.join_channels(image_set.images(share), image_set.channel_names), embedder.rows_of_set(image_set)[share]
    )
    count = min(most, len(rows))
    return {"image": image[:count], "reconstruction": reconstruction[:count], "index": shown[:count]}


def _write_codebook(workdir: Path, code_use: CodeUse, made_from: MadeFrom) -> None:
    _write_npz(
        workdir / run_files.CODEBOOK,
        made_from,
        code_counts=code_use.counts,
        positions=code_use.positions,
        capacity_bits=code_use.capacity_bits,
    )


def _write_npz(path: Path, made_from: MadeFrom, **arrays: Any) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    integrity.write_bytes(path, content.getvalue(), made_from)
