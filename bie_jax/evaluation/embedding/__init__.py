"""From a trained run to one row of features per image."""

from bie_jax.evaluation.embedding.code_use import CodeUse
from bie_jax.evaluation.embedding.components import Components
from bie_jax.evaluation.embedding.embedder import Embedder
from bie_jax.evaluation.embedding.load import load, load_latents, load_readout, load_untrained
from bie_jax.evaluation.embedding.normalization import Controls
from bie_jax.evaluation.embedding.read import read_embeddings
from bie_jax.evaluation.embedding.whole_set import embed_image_set
from bie_jax.evaluation.embedding.write import write_embeddings
from bie_jax.evaluation.embedding.write_new import write_new_embeddings

__all__ = [
    "CodeUse",
    "Components",
    "Controls",
    "Embedder",
    "embed_image_set",
    "load",
    "load_latents",
    "load_readout",
    "load_untrained",
    "read_embeddings",
    "write_embeddings",
    "write_new_embeddings",
]
