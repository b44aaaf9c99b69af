"""Views of an image agree, and embeddings look Gaussian from every side: LeJEPA.

Balestriero & LeCun 2025, arXiv 2511.08544. There is no teacher: `view_spread` pulls the views of an image together, and
`sigreg` keeps the embeddings from collapsing. The paper weighs them by 1 - lambda and lambda.

`there` [B] bool says which images count. The others may hold anything, infinity and NaN too: they change neither values
nor gradients. Sums are float32. Under `jax.jit` with a split batch all means are those of the global batch.
"""

import jax
import jax.numpy as jnp
import numpy as np


def sigreg(
    key: jax.Array,
    embedding: jax.Array,
    there: jax.Array,
    num_slices: int,
    num_knots: int = 17,
    largest: float = 3.0,
) -> jax.Array:
    """How far the embeddings are from a standard normal distribution, by their characteristic functions along slices.

    Mean over M random unit vectors a of the statistic of Epps & Pulley (Biometrika 1983), which here is

        integral of |E_n exp(i t a.z_n) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) dt, t from -largest to largest,

    by the trapezoidal rule over [0, largest], doubled, as the integrand is even. Knots and weights are those of the
    authors' code. For normal embeddings the value is about 0.53 / N, and 0.2 if all embeddings are 0.

    Difference from the paper: there the statistic is multiplied by N, the number of images, as a test of significance
    has it. Here it is not: with that factor the weight beside `view_spread` would have to change with the batch size.
    The ratio lambda / (1 - lambda) here is N times the published one: 0.05 / 0.95 at N = 128 there is 6.7 here.

    At a collapse the gradient cannot help: if all embeddings are equal they have equal gradients, which move them
    together and not apart, and if all are 0 it vanishes, although the value is far from its minimum. Embeddings that
    begin a little apart are driven apart. Projections that differ by 2 pi (num_knots - 1) / largest (33.5) have the
    same value at all knots and are not told apart.

    Args:
        key: for the unit vectors; to be another one in each step. The views of a batch take the same.
        embedding: [B, D], of one view. The paper takes the mean of the values of all views, local ones too.
        there: [B] bool.
        num_slices: M, at least 1. The paper's is 1024; the cosines of all projections are [B, M, num_knots].
        num_knots: how many t, 0 and `largest` among them; at least 2.
        largest: the largest t, above 0; in reciprocal units of the embedding.

    Returns:
        Scalar float32, at least 0; 0 if no image is there.

    Raises:
        ValueError: if the shapes do not fit, or there are no slices, no interval or too few knots.
    """
    if embedding.ndim != 2 or there.shape != embedding.shape[:1]:
        raise ValueError(f"embedding is {embedding.shape}, there is {there.shape}; expected [B, D] and [B]")
    if num_slices < 1 or num_knots < 2 or not largest > 0:
        raise ValueError(
            f"num_slices is {num_slices}, num_knots {num_knots}, largest {largest}; expected at least 1 slice, at "
            "least 2 knots and a largest above 0"
        )
    t = np.linspace(0, largest, num_knots)
    normal = np.exp(-np.square(t) / 2)
    steps = np.full(num_knots, 2 * largest / (num_knots - 1))  # the factor 2 is for negative t
    steps[[0, -1]] /= 2
    weights = steps * normal

    directions = jax.random.normal(key, (embedding.shape[1], num_slices))  # [D, M], each way as likely as any other
    directions = directions / jnp.linalg.norm(directions, axis=0, keepdims=True)
    rows = jnp.where(there[:, None], embedding.astype(jnp.float32), 0)
    projections = jnp.matmul(rows, directions, precision="highest")
    angles = projections[:, :, None] * jnp.asarray(t, jnp.float32)[None, None, :]  # [B, M, knots]

    def mean(values: jax.Array) -> jax.Array:
        return jnp.where(there[:, None, None], values, 0).sum(axis=0) / jnp.maximum(there.sum(), 1)

    real = mean(jnp.cos(angles)) - jnp.asarray(normal, jnp.float32)[None, :]
    distance = jnp.square(real) + jnp.square(mean(jnp.sin(angles)))  # [M, knots]
    statistic = (distance * jnp.asarray(weights, jnp.float32)[None, :]).sum(axis=1).mean()
    return jnp.where(there.any(), statistic, 0)


def view_spread(embeddings: jax.Array, there: jax.Array) -> jax.Array:
    """How far the views of an image lie from their mean: the prediction loss of LeJEPA.

    Mean over views, images and the D dimensions of (z_v - mean_v z)^2. The paper writes a squared norm, which is D
    times as much, and both programs published by its authors take the mean over dimensions. So does this: `sigreg` does
    not grow with D, and the weight between the two would otherwise be tied to the width of the embedding.

    The gradient goes into the mean too. Difference from the paper: there the mean is that of the global views, and here
    that of all, as in the authors' minimal example.

    Args:
        embeddings: [V, B, D], one per view.
        there: [B] bool.

    Returns:
        Scalar float32, at least 0; 0 if no image is there.

    Raises:
        ValueError: if the shapes do not fit, or there is only one view.
    """
    if embeddings.ndim != 3 or there.shape != embeddings.shape[1:2]:
        raise ValueError(f"embeddings are {embeddings.shape}, there is {there.shape}; expected [V, B, D] and [B]")
    views, _, width = embeddings.shape
    if views < 2:
        raise ValueError(f"{views} view of an image is its own mean: ask for two or more")
    embeddings = jnp.where(there[None, :, None], embeddings.astype(jnp.float32), 0)
    scatter = jnp.square(embeddings - embeddings.mean(axis=0, keepdims=True)).sum()
    return scatter / (views * width * jnp.maximum(there.sum(), 1))
