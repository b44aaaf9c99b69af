"""What each method minimises: one pure function per method, all with one signature.

    objective(model, params, model_state, image, weight, *, train) -> (loss, Aux)

`loss` is the scalar to differentiate. The training loop knows nothing else about a method.
"""

from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import flax.struct
import jax

from bie_jax.losses.reconstruction import mean_squared_error


@flax.struct.dataclass
class Aux:
    """What an objective hands back beside its loss.

    Attributes:
        metrics: scalars to log, unweighted term values under the names they get in `metrics.jsonl`.
        model_state: batch statistics and codebooks after this batch (unchanged when not training).
        reconstruction: [B, H, W, C] float, normalised like the input.
        codes_seen: [G, K] bool, the codes that occurred in this batch.
    """

    metrics: dict[str, jax.Array]
    model_state: Any
    reconstruction: jax.Array
    codes_seen: jax.Array


def vqvae(
    model: nn.Module, params: Any, model_state: Any, image: jax.Array, weight: jax.Array, *, train: bool
) -> tuple[jax.Array, Aux]:
    """L = mean (x - x')^2 + beta mean ||z_e - sg[e]||^2 (van den Oord et al. 2017, eq. 3).

    The codebook term of the paper is absent: the codebook is learnt by moving averages. Every term is a mean over
    batch and positions, so the loss does not depend on the batch size.

    Args:
        model: a `VQVAE`.
        params: its parameters.
        model_state: its other collections.
        image: [B, H, W, C] float, normalised.
        weight: [B, C] float, 1 for a channel of an image; 0 for one that the image's set does not have, and for all
            channels of what pads a last batch.
        train: whether batch statistics and codebooks are updated.
    """
    variables = {"params": params, **model_state}
    if train:
        (reconstruction, out), model_state = model.apply(variables, image, train=True, mutable=list(model_state))
    else:
        reconstruction, out = cast(Any, model.apply(variables, image, train=False))
    per_image = {"recon": mean_squared_error(image, reconstruction, weight), "vq": out["commitment"]}
    counts = weight.max(axis=1)
    terms = {name: (counts * value).sum() / counts.sum() for name, value in per_image.items()}
    loss = terms["recon"] + terms["vq"]
    metrics = {"loss": loss, **terms, "perplexity": out["perplexity"]}
    return loss, Aux(metrics, model_state, reconstruction, out["code_counts"] > 0)


OBJECTIVES: dict[str, Callable[..., tuple[jax.Array, Aux]]] = {"vqvae": vqvae}
