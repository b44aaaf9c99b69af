"""Microscopy in, trustworthy embeddings out: self-supervised autoencoders for n-channel images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bie_jax.evaluation.embedding import Embedder

__all__ = ["load"]


def load(workdir: str | Path) -> Embedder:
    """The trained network of a workdir: `bie_jax.load("runs/vqvae").embed(images, channels=[...])`.

    See `bie_jax.evaluation.embedding.Embedder.embed`.
    """
    # Imported here, so that a model or a loss can be used where Grain, TFDS and the rest are not installed.
    from bie_jax.evaluation.embedding import load as load_embedder

    return load_embedder(workdir)
