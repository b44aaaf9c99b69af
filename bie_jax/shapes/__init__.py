"""Shapes: outlines of masks, their distance matrices, and the way back; plain functions that know nothing of training.

`embed_masks` is the one exception, for people with masks, a trained run and no patience.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def embed_masks(masks: np.ndarray | Sequence[np.ndarray], workdir: str | Path) -> np.ndarray:
    """Embeddings of masks by a trained run.

    Args:
        masks: [N, H, W], or N masks [H, W] of any sizes; numbers, 0 is background. One object each: of several
            components the largest counts (`bie_jax.shapes.contour.masks_to_contours`).
        workdir: of a run on a set of shapes that were traced in the same way ("linear" steps).

    Returns:
        [N, D] float32, as in the run's table; what it appends to the embedding (`eval.append`) is not there.

    Raises:
        ValueError: for a mask that is empty, has masked values or is not [H, W] of finite numbers; its number is named.
        ConfigError: if nothing was trained in the workdir, or not on shapes.
    """
    # Imported here: everything else in this package does without the trainer's dependencies.
    from bie_jax.config.schema import ConfigError
    from bie_jax.config.stored import load_config
    from bie_jax.evaluation.embedding import load
    from bie_jax.shapes.contour import mask_to_contour, masks_to_contours

    if not (Path(workdir) / "config.json").is_file():
        raise ConfigError(
            f"nothing was trained in {workdir}; a folder of such masks becomes a run there by\n"
            "  python -m data.build my_masks --kind=shapes --source=FOLDER --layout=folder\n"
            f"  python launch.py --config=configs/shape_vae_mnist.py --config.data.name=my_masks --workdir={workdir}"
        )
    if load_config(Path(workdir)).data.kind != "shapes":
        raise ConfigError(f"{workdir} was trained on images; embed_masks needs a run with config.data.kind='shapes'")
    embedder = load(workdir)
    num_points = embedder.image_shape[0]
    for number, mask in enumerate(masks):
        if np.ma.isMaskedArray(mask) and np.ma.getmaskarray(mask).any():
            raise ValueError(f"mask {number} holds masked values; fill them (mask.filled(0)) or leave it out")
    if isinstance(masks, np.ndarray) and masks.ndim == 3:
        outlines = masks_to_contours(masks, num_points)
    else:
        outlines = np.empty((len(masks), num_points, 2))
        for number, mask in enumerate(masks):
            try:
                outlines[number] = mask_to_contour(mask, num_points)
            except ValueError as error:
                raise ValueError(f"mask {number}: {error}") from None
    return embedder.embed(outlines[..., None].astype(np.float32))
