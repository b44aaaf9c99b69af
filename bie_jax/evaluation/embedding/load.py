"""Networks out of a workdir: the trained one, read in several ways, and the same with random weights."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from bie_jax.config.schema import Config, EvalConfig
from bie_jax.config.stored import load_config
from bie_jax.evaluation.embedding.components import Components
from bie_jax.evaluation.embedding.embedder import Embedder
from bie_jax.objectives import build_model
from bie_jax.training import run_files
from bie_jax.training.checkpoint import load_model
from bie_jax.training.sharding import embedding_layout
from bie_jax.training.state import initial_variables


def load(workdir: str | Path) -> Embedder:
    """The trained network of a workdir, at its best validation, read as its configuration says.

    Raises:
        ConfigError, FileNotFoundError: if nothing was trained there.
        DamagedFileError: if a file is not what was written, or components were asked for and the set was not embedded,
            to which they are fitted.
        StaleFileError: if they were fitted to other embeddings.
    """
    workdir = Path(workdir)
    config = load_config(workdir)
    components = None
    if config.num_components:
        components = Components.load(workdir, run_files.origin_of_network(workdir, config))
    return _embedder(workdir, (config.eval.readout,), components)


def load_readout(workdir: str | Path) -> Embedder:
    """The same network, read as its configuration says, before any components are taken of that."""
    workdir = Path(workdir)
    readout = load_config(workdir).eval.readout
    return _embedder(workdir, (readout,), None)


def load_latents(workdir: str | Path) -> Embedder:
    """The same network, read at its bottleneck whatever the configuration reads: points that `decode` takes."""
    return _embedder(Path(workdir), ("embedding",), None)


def load_readouts(workdir: str | Path, readouts: tuple[str, ...]) -> Embedder:
    """The same network, read in several ways side by side: `eval.readout` has their names, `widths` their lengths."""
    return _embedder(Path(workdir), readouts, None)


def load_untrained(
    workdir: str | Path, seeds: Sequence[int], readouts: tuple[str, ...] | None = None
) -> Iterator[Embedder]:
    """The same network and intensities with random weights: the baseline that training has to beat.

    Args:
        workdir: folder of a run.
        seeds: of the weights, one network for each; they are compiled once.
        readouts: as in `load_readouts`. None: the embedding at the bottleneck, and `second_readout`. Which of the two
            says more differs between networks and sets (`experiments/embedding`), and a baseline must be given its best
            reading: both are scored.
    """
    config, dataset, model, _, draw = _build(Path(workdir))
    embedder = None
    for seed in seeds:
        variables = draw(jax.random.key(seed))
        if embedder is None:
            readouts = readouts or ("embedding", second_readout(config.eval))
            embedder = Embedder(config, dataset, model, variables, readouts, None)
        else:
            embedder = embedder.with_variables(variables)
        yield embedder


def second_readout(settings: EvalConfig) -> Literal["features", "statistics", "layers"]:
    """That of the trained network, or where it is read at its bottleneck what lies before that."""
    return "features" if settings.readout == "embedding" else settings.readout


def _build(
    workdir: Path,
) -> tuple[Config, dict[str, Any], nn.Module, dict[str, Any], Callable[[jax.Array], dict[str, Any]]]:
    """Configuration, description of the sets, network, where its variables lie, and what draws them from a key."""
    config = load_config(workdir)
    dataset = run_files.read_dataset(workdir)
    model = build_model(config, len(dataset["channel_names"]))
    blank = jnp.zeros((1, *config.data.crop_size, len(dataset["channel_names"])))

    def draw(key: jax.Array) -> dict[str, Any]:
        return initial_variables(model, blank, key)

    shapes = embedding_layout(config.train.mesh).abstract(jax.eval_shape(draw, jax.random.key(0)))
    shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
    return config, dataset, model, shapes, jax.jit(draw, out_shardings=shardings)


def _embedder(workdir: Path, readouts: tuple[str, ...], components: Components | None) -> Embedder:
    """The trained network of a workdir."""
    config, dataset, model, shapes, _ = _build(workdir)
    variables, _ = load_model(workdir, shapes)
    return Embedder(config, dataset, model, variables, readouts, components)
