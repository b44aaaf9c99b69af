"""Which tokens a masked autoencoder does not see."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Masking(NamedTuple):
    """Which tokens are removed.

    Attributes:
        ids_shuffle: [B, N] int32, the tokens in a random order, those that are kept first.
        ids_keep: [B, n] int32, the first n of them.
        ids_restore: [B, N] int32, the place of each token in that order; the inverse of `ids_shuffle`.
        token_mask: [B, N] bool, 1 = removed; 0 for tokens that are kept and for those that are not there.
        kept: [B, N] bool, 1 = kept.
        filled: [B, n] bool, which of `ids_keep` are kept tokens: the others fill the rows of examples with fewer.
    """

    ids_shuffle: jax.Array
    ids_keep: jax.Array
    ids_restore: jax.Array
    token_mask: jax.Array
    kept: jax.Array
    filled: jax.Array


def random_masking(noise: jax.Array, mask_ratio: float, present: jax.Array | None = None) -> Masking:
    """Remove tokens at random: an example with N of them keeps the int(N (1 - mask_ratio)) with the least noise.

    Args:
        noise: [B, N] float, finite.
        mask_ratio: share that is removed, in (0, 1).
        present: [B, N] bool, the tokens that there are; the share is taken of them. None: all.

    Source:
        He et al. 2021, section 3 ("Masking"), as their code rounds.
    """
    tokens = noise.shape[1]
    keep_of = np.asarray([int(count * (1 - mask_ratio)) for count in range(tokens + 1)], np.int32)
    if present is None:
        present = jnp.ones(noise.shape, bool)
    keep = jnp.asarray(keep_of)[present.sum(axis=1)][:, None]  # [B, 1]
    ids_shuffle = jnp.argsort(jnp.where(present, noise, jnp.inf), axis=1)
    ids_restore = jnp.argsort(ids_shuffle, axis=1)
    slots = int(keep_of[-1])
    return Masking(
        ids_shuffle=ids_shuffle,
        ids_keep=ids_shuffle[:, :slots],
        ids_restore=ids_restore,
        token_mask=present & (ids_restore >= keep),
        kept=ids_restore < keep,
        filled=jnp.arange(slots)[None] < keep,
    )
