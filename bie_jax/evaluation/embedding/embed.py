"""One row of features per image, from a trained workdir.

Deterministic: no augmentation, no sampling, a fixed order, statistics from the workdir. The row of an image does not
depend on which other images are embedded with it.
"""

import copy
import io
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import anndata
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from tqdm import tqdm

from bie_jax.config.schema import Config
from bie_jax.config.stored import load_config
from bie_jax.evaluation.embedding.components import Components
from bie_jax.files import integrity
from bie_jax.files.integrity import MadeFrom
from bie_jax.input.batches import eval_batches
from bie_jax.input.columns import SPLIT, embedding_columns, h5ad_name
from bie_jax.input.covariates import known_numbers
from bie_jax.input.image_set import ImageSet, open_image_set
from bie_jax.input.mixture import Mixture
from bie_jax.input.pixels import as_pixels, check_finite_rows
from bie_jax.input.splits import split_image_set
from bie_jax.models import encoder_stride, has_fixed_size
from bie_jax.models.quantizers.lookup import capacity_bits
from bie_jax.objectives import build_model
from bie_jax.training import run_files, sharding
from bie_jax.training.checkpoint import load_model
from bie_jax.training.state import initial_variables
from bie_jax.views.intensities import intensity_table, table_rows
from bie_jax.views.kinds import VIEWS
from bie_jax.views.outlines import num_phases


class Embedder:
    """A network with its weights and the intensities it was trained on; made by `load` or `load_untrained`.

    Attributes:
        model_name: e.g. "vqvae"; the prefix of feature columns.
        channel_names: the channels the network takes, in its order.
        dim: numbers per image.
        widths: how many of these each readout has, where there are several.
        image_shape: (H, W, C) of the images of the set that is embedded; (P, 2, 1) of outlines.
        num_codes: K of each codebook; of a VQ-VAE only.
    """

    def __init__(
        self,
        config: Config,
        dataset: dict[str, Any],
        model: Any,
        variables: dict[str, Any],
        readouts: tuple[str, ...],
        components: Components | None,
    ):
        """Ready to embed; `readouts` are the entries of the model's `out` that are, side by side, an image's row, or
        what `components` are taken of."""
        self.model_name: str = config.model.name
        self.channel_names: tuple[str, ...] = tuple(dataset["channel_names"])
        self.num_codes: int = config.model.quantizer.num_codes
        self._config = config
        self._components = components
        self._sets = dataset["sets"]
        self.image_shape: tuple[int, int, int] = tuple(self._sets[0]["image_shape"])
        self._table_rows = table_rows(self._sets)
        self._layout = sharding.data_layout()
        self._variables = jax.device_put(variables, self._layout.of(variables))
        table = intensity_table(
            self._sets, self.channel_names, config.data.normalization, config.data.normalization_scope
        )

        view = VIEWS[config.data.kind].evaluate

        def look(image, plate):
            return view(image, plate, table, self.input_size(*image.shape[1:3]), config.data)

        def encode(variables, image, plate):
            present = table.present[plate] > 0
            phases = self._num_phases(image.shape[1])
            if phases == 1:
                _, out = model.apply(variables, look(image, plate), present, train=False, method="encode")
            else:

                def from_start(start):
                    view = look(jnp.roll(image, -start, axis=1), plate)
                    return model.apply(variables, view, present, train=False, method="look")

                # One after the other: all at once would need the memory of as many batches.
                features = jax.lax.map(from_start, jnp.arange(phases)).mean(axis=0)
                _, out = model.apply(variables, features, present, train=False, method="read")
            return [out[name].astype(jnp.float32) for name in readouts], out.get("codes")

        def reconstruct(variables, image, plate):
            view = look(image, plate)
            noise = {"noise": jax.random.key(config.train.seed)}  # patches to remove, of a method that does
            return view, model.apply(variables, view, table.present[plate] > 0, train=False, rngs=noise)[0]

        def decode(variables, embedding):
            return model.apply(variables, embedding, *self._map_size, method="decode")

        blank = jnp.zeros((1, *config.data.crop_size, len(self.channel_names)))
        row = jnp.zeros(1, jnp.int32)
        read = jax.eval_shape(encode, self._variables, blank, row)[0]
        self.widths: tuple[int, ...] = tuple(part.shape[-1] for part in read)
        self.dim: int = sum(self.widths) if components is None else components.axes.shape[1]
        encoded = jax.eval_shape(lambda v: model.apply(v, blank, train=False, method="encode")[0], self._variables)
        self._map_size = encoded.shape[1:3]
        batch = self._layout.batch
        shardings = {
            "in_shardings": (self._layout.of(self._variables), batch, batch),
            "out_shardings": self._layout.host,
        }
        self._encode = jax.jit(encode, **shardings)
        self._reconstruct = jax.jit(reconstruct, **shardings)
        self._decode = jax.jit(decode)

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """The middle part of an image that is looked at, pixels; of outlines (P, P), the size of their matrices.

        `eval.image_size`, or for (0, 0) the whole image, cut to a multiple of the network's stride (a network of fixed
        size has that of training).

        Raises:
            ValueError: if the image is smaller than that.
        """
        if self._config.data.kind == "shapes":
            return self._config.data.crop_size
        stride = encoder_stride(self._config.model)
        size = self._config.eval.image_size
        if size == (0, 0) and has_fixed_size(self._config.model):
            size = self._config.data.crop_size
        wanted = (height // stride * stride, width // stride * stride) if size == (0, 0) else size
        if min(wanted) == 0 or wanted[0] > height or wanted[1] > width:
            raise ValueError(
                f"images of {height} x {width} pixels are too small: the model looks at "
                f"{wanted[0] or stride} x {wanted[1] or stride}"
            )
        return wanted

    def _num_phases(self, height: int) -> int:
        """Views that are averaged for an embedding; of images one."""
        if self._config.data.kind != "shapes":
            return 1
        return num_phases(height, self._config.data.crop_size, self._config.model)

    def embed(
        self, images: np.ndarray, channels: Sequence[str] | None = None, plates: Sequence[str] | None = None
    ) -> np.ndarray:
        """Features of images.

        Args:
            images: [N, H, W, C] camera counts, as the training images were before any normalization: uint8, uint16,
                float, or other whole numbers up to 2^24 (`bie_jax.input.pixels.as_pixels`); of shapes closed outlines
                [N, P', 2, 1], px, P' a multiple of `data.crop_size[0]`. Which of the P' points is the first changes
                nothing unless `model.ring.keeps` says so: an embedding is the mean of what the encoder says of every
                k-th point from each of k starts.
            channels: names of the C channels; they may come in any order. None: they are in the model's order. A model
                of several sets takes the channels of any one of them.
            plates: name of each image's plate, if they come from plates of the training set; matters only for
                `data.normalization_scope = "plate"`. None: read against the whole set's statistics.

        Returns:
            [N, D] float32.

        Raises:
            ValueError: for other channels than the model's, images too small, an unknown plate, values that are not
                finite or that float32 does not hold, and rows that are not finite.
        """
        images = as_pixels(images)
        if images.ndim != 4:
            raise ValueError(f"images have shape {images.shape}; expected [N, H, W, C]")
        if self._config.data.kind == "shapes":
            num_points = self._config.data.crop_size[0]
            if images.shape[2:] != (2, 1) or images.shape[1] % num_points:
                raise ValueError(
                    f"outlines have shape {images.shape}; expected [N, P', 2, 1], P' a multiple of {num_points}, the "
                    "points that the model looks at"
                )
        described = self._set_of(images.shape[-1], channels)
        images = self._join_channels(images, self.channel_names if channels is None else channels)
        if plates is not None and len(plates) != len(images):
            raise ValueError(f"{len(plates)} plates for {len(images)} images: one for each")
        rows = self._rows_of(described, [""] * len(images) if plates is None else plates)
        batch_size = self.batch_size
        out = np.empty((len(images), self.dim), np.float32)
        for start in range(0, len(images), batch_size):
            chosen = np.arange(start, min(start + batch_size, len(images)))
            padded = np.resize(chosen, batch_size)  # repeats images, so that every batch has one shape
            features, _ = self.encode_batch(images[padded], rows[padded])
            out[chosen] = features[: len(chosen)]
        check_finite_rows(out, "the embedding")
        return out

    @property
    def batch_size(self) -> int:
        """`eval.batch_size`, rounded up so that all devices share it."""
        return _shared(self._config.eval.batch_size)

    def batch_of(self, count: int) -> int:
        """The same, of no more than all `count` images of a set."""
        return min(self.batch_size, _shared(count))

    def encode_batch(self, image: np.ndarray, plate: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """[B, H, W, C] counts, [B] rows of the intensity table -> [B, D], and codes [B, ..., G] of a VQ-VAE."""
        placed = sharding.put_batch({"image": image, "plate": plate}, self._layout.batch)
        parts, codes = jax.device_get(self._encode(self._variables, placed["image"], placed["plate"]))
        features = np.concatenate(parts, axis=1)
        return features if self._components is None else self._components(features), codes

    def reconstruct_batch(self, image: np.ndarray, plate: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[B, H, W, C] counts -> normalized images and reconstructions, the part that is looked at."""
        placed = sharding.put_batch({"image": image, "plate": plate}, self._layout.batch)
        return jax.device_get(self._reconstruct(self._variables, placed["image"], placed["plate"]))

    def decode(self, embeddings: np.ndarray) -> np.ndarray:
        """What the decoder makes of any points [N, D] of the latent space: [N, H, W, C], normalized as its input is.

        Of autoencoders whose bottleneck has one vector per image.
        """
        return np.asarray(self._decode(self._variables, jnp.asarray(embeddings, jnp.float32)), np.float32)

    def with_variables(self, variables: dict[str, Any]) -> Self:
        """The same network with other weights; what was compiled for this one serves it too."""
        other = copy.copy(self)
        other._variables = jax.device_put(variables, self._layout.of(variables))
        return other

    def _set_of(self, count: int, channels: Sequence[str] | None) -> dict[str, Any]:
        """The first of the training sets that has these channels."""
        given = self.channel_names if channels is None else channels
        for described in self._sets:
            if count == len(given) and sorted(given) == sorted(described["channel_names"]):
                return described
        possible = " or ".join(", ".join(described["channel_names"]) for described in self._sets)
        if channels is None:
            raise ValueError(f"the images have {count} channels, the model takes {len(self.channel_names)}: {possible}")
        raise ValueError(
            f"the images ({count} channels) are said to have the channels {', '.join(channels)}; the model takes "
            f"{possible} (in any order)"
        )

    def _join_channels(self, images: np.ndarray, channels: Sequence[str]) -> np.ndarray:
        """[N, H, W, c] -> [N, H, W, C] in the model's order; a channel that is not there is 0, also normalized."""
        if tuple(channels) == self.channel_names:
            return images
        joined = np.zeros((*images.shape[:-1], len(self.channel_names)), images.dtype)
        joined[..., [self.channel_names.index(name) for name in channels]] = images
        return joined

    def _rows_of(self, described: dict[str, Any], plates: Sequence[str]) -> np.ndarray:
        """Rows of the intensity table; plate "" is the whole set."""
        unknown = sorted({plate for plate in plates if (described["name"], plate) not in self._table_rows})
        if unknown:
            raise ValueError(
                f"no intensity statistics for plates {unknown}; the model knows {sorted(described['plates'])}"
            )
        return np.asarray([self._table_rows[described["name"], plate] for plate in plates], np.int32)


def load(workdir: str | Path) -> Embedder:
    """The trained network of a workdir, at its best validation, read as its configuration says.

    Raises:
        ConfigError, FileNotFoundError: if nothing was trained there.
        DamagedFileError: if a file is not what was written, or components were asked for and the set was not embedded,
            to which they are fitted.
        StaleFileError: if they were fitted to other embeddings.
    """
    workdir = Path(workdir)
    settings = load_config(workdir).eval
    components = None
    if settings.components:
        components = Components.load(workdir, run_files.origin_of_network(workdir, settings))
    return _embedder(workdir, (settings.readout,), components)


def load_readout(workdir: str | Path) -> Embedder:
    """The same network, read as its configuration says, before any components are taken of that."""
    workdir = Path(workdir)
    readout = load_config(workdir).eval.readout
    return _embedder(workdir, (readout,), None)


def load_latents(workdir: str | Path) -> Embedder:
    """The same network, read at its bottleneck whatever the configuration reads: points that `decode` takes."""
    return _embedder(Path(workdir), ("embedding",), None)


def load_untrained(workdir: str | Path, seeds: Sequence[int]) -> Iterator[Embedder]:
    """The same network and intensities with random weights: the baseline that training has to beat.

    Rows are read in two ways, side by side: the embedding at the bottleneck, as that of a trained network, and the mean
    over positions of the encoder's output, before it; `widths` has the length of each. Which of the two says more
    differs between networks and sets (`experiments/embedding`), and a baseline must be given its best reading: both
    are scored.

    Args:
        workdir: folder of a run.
        seeds: of the weights, one network for each; they are compiled once.
    """
    config, dataset, model, draw = _network(Path(workdir))
    embedder = None
    for seed in seeds:
        variables = draw(jax.random.key(seed))
        if embedder is None:
            embedder = Embedder(config, dataset, model, variables, ("embedding", "features"), None)
        else:
            embedder = embedder.with_variables(variables)
        yield embedder


def _network(workdir: Path) -> tuple[Config, dict[str, Any], Any, Callable[[jax.Array], dict[str, Any]]]:
    """Configuration, description of the sets, network, and what draws its variables from a key."""
    config = load_config(workdir)
    dataset = run_files.read_dataset(workdir)
    model = build_model(config, len(dataset["channel_names"]))
    blank = jnp.zeros((1, *config.data.crop_size, len(dataset["channel_names"])))
    return config, dataset, model, jax.jit(lambda key: initial_variables(model, blank, key))


def _embedder(workdir: Path, readouts: tuple[str, ...], components: Components | None) -> Embedder:
    """The trained network of a workdir."""
    config, dataset, model, draw = _network(workdir)
    # Of what is loaded the shapes are enough; random numbers take long to compile.
    variables, _ = load_model(workdir, sharding.on_first_device(jax.eval_shape(draw, jax.random.key(0))))
    return Embedder(config, dataset, model, variables, readouts, components)


def embed_image_set(embedder: Embedder, image_set: ImageSet, progress: bool = True) -> np.ndarray:
    """Features of every image of a set, in its order: [N, D] float32."""
    return _embed_rows(embedder, image_set, progress)[0]


def _shared(count: int) -> int:
    """Rounded up so that all devices have as many."""
    devices = jax.device_count()
    return -(-count // devices) * devices


def _embed_rows(embedder: Embedder, image_set: ImageSet, progress: bool) -> tuple[np.ndarray, "CodeUse | None"]:
    """Features [N, D], and how often each code of a VQ-VAE occurs."""
    rows = np.arange(len(image_set))
    mixture = Mixture((image_set,))
    described = embedder._set_of(len(image_set.channel_names), image_set.channel_names)
    plates = embedder._rows_of(described, image_set.metadata["plate"].tolist())
    features = np.empty((len(image_set), embedder.dim), np.float32)
    code_use = None
    bar = tqdm(total=len(rows), desc="embed", unit="image", disable=not progress, mininterval=1.0)
    with bar:
        for batch in eval_batches(mixture, rows, embedder.batch_of(len(rows)), read_threads=2):
            real = batch["weight"] > 0
            image = embedder._join_channels(batch["image"], image_set.channel_names)
            out, codes = embedder.encode_batch(image, plates[batch["row"]])
            features[batch["row"][real]] = out[real]
            if codes is not None:
                if code_use is None:
                    code_use = CodeUse(embedder.num_codes, codes.shape)
                code_use.add(codes[real])
            bar.update(int(real.sum()))
    check_finite_rows(features, f"the embedding of {image_set.name!r}", image_set.metadata["source"])
    return features, code_use


class CodeUse:
    """How often each code occurs.

    Attributes:
        counts: [G, K] int64.
        positions: vectors per image.
    """

    def __init__(self, num_codes: int, shape: tuple[int, ...]):
        """Nothing counted; `shape` is that of a batch's codes, [B, ..., G]."""
        self.counts = np.zeros((shape[-1], num_codes), np.int64)
        self.positions = math.prod(shape[1:-1])

    def add(self, codes: np.ndarray) -> None:
        """Count codes [B, ..., G]."""
        for counts, values in zip(self.counts, np.moveaxis(codes, -1, 0), strict=True):
            counts += np.bincount(values.ravel(), minlength=len(counts))

    @property
    def capacity_bits(self) -> float:
        """Most bits that the codes of an image can hold: positions x G x log2 K."""
        return capacity_bits(self.positions, *self.counts.shape)


def write_embeddings(workdir: str | Path) -> pd.DataFrame:
    """Embed the set that a workdir was trained on; the numbers of `eval.append` stand behind the embedding.

    Writes `embeddings.parquet` (`Metadata_*`, then `<model>_0000` ...), `embeddings.h5ad`, `reconstructions.npz`
    (validation images) and, for a VQ-VAE, `codebook.npz`, each whole or not at all.

    Returns:
        The table as in the parquet file.
    """
    workdir = Path(workdir)
    config = load_config(workdir)
    with run_files.opened(workdir):
        return _write_embeddings(workdir, config)


def _write_embeddings(workdir: Path, config: Config) -> pd.DataFrame:
    embedder = load_readout(workdir)
    image_set = open_image_set(config.data.name, config.data.data_dir)
    run_files.check_same_set(workdir, image_set)
    made_from = run_files.origin_of_embeddings(workdir, config.eval, image_set)
    features, code_use = _embed_rows(embedder, image_set, progress=True)

    train_rows, val_rows = split_image_set(config, image_set)
    if config.eval.components:
        components = Components.fit(features[train_rows], config.eval.components)
        components.save(workdir, made_from)
        features = components(features)
    metadata = embedding_columns(image_set.metadata)
    is_val = np.isin(np.arange(len(image_set)), val_rows)
    metadata[SPLIT] = np.where(is_val, "val", "train")
    features = np.concatenate([features, known_numbers(image_set, config.eval.append)], axis=1)
    check_finite_rows(features, "the embedding with what is appended to it", image_set.metadata["source"])
    names = [f"{embedder.model_name}_{i:04d}" for i in range(features.shape[1])]
    table = pd.concat([metadata, pd.DataFrame(features, columns=pd.Index(names))], axis=1)
    table.attrs["made_from"] = made_from  # in the file too, for who finds it elsewhere
    content = io.BytesIO()
    table.to_parquet(content, index=False)
    integrity.write_bytes(workdir / run_files.EMBEDDINGS, content.getvalue(), made_from)

    obs = metadata.rename(columns=h5ad_name).set_index(pd.Index([str(i) for i in range(len(metadata))]))
    data = anndata.AnnData(X=features, obs=obs, var=pd.DataFrame(index=pd.Index(names)), uns={"made_from": made_from})
    needed = features.nbytes + int(metadata.memory_usage(deep=True).sum())
    integrity.write_file(workdir / run_files.EMBEDDINGS_H5AD, data.write_h5ad, needed, made_from)

    shown = np.resize(val_rows, embedder.batch_of(len(image_set)))
    described = embedder._set_of(len(image_set.channel_names), image_set.channel_names)
    plates = embedder._rows_of(described, image_set.metadata["plate"].iloc[shown].tolist())
    image, reconstruction = embedder.reconstruct_batch(
        embedder._join_channels(image_set.images(shown), image_set.channel_names), plates
    )
    count = min(config.train.num_reconstructions, len(val_rows))
    _write_npz(
        workdir / run_files.RECONSTRUCTIONS,
        made_from,
        image=image[:count],
        reconstruction=reconstruction[:count],
        index=shown[:count],
    )
    if code_use is not None:
        _write_npz(
            workdir / run_files.CODEBOOK,
            made_from,
            code_counts=code_use.counts,
            positions=code_use.positions,
            capacity_bits=code_use.capacity_bits,
        )
    return table


def _write_npz(path: Path, made_from: MadeFrom, **arrays: Any) -> None:
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    integrity.write_bytes(path, content.getvalue(), made_from)
