"""Variational autoencoder over outlines of osteosarcoma cells; size stands beside the embedding.

    python launch.py --config=configs/shape_vae_cells.py          the whole set, once built
    python launch.py --config=configs/shape_vae_cells.py:tiny     two epochs of a small network; what the tests run

`experiments/shapes` has its scores beside the baselines.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one variant, "" or "tiny"."""
    config = base.get_shape_config(variant, "shape_vae_cells")
    config.data.name = "osteosarcoma"
    config.eval.append = ("scale_px", "area_px")
    return config
