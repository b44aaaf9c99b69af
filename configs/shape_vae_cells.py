"""Variational autoencoder over outlines of osteosarcoma cells; size stands beside the embedding.

    python launch.py --config=configs/shape_vae_cells.py          the whole set, once built
    python launch.py --config=configs/shape_vae_cells.py:tiny     two epochs of a small network; what the tests run

`experiments/shapes` has its scores beside the baselines.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(variant: str = "") -> ConfigDict:
    """The configuration of one variant, "" or "tiny"."""
    config = base.get_shape_config()
    config.data.name = "osteosarcoma"
    # Boundaries are traced finely, and how ragged they are tells the lines apart.
    config.data.crop_size = (256, 256)
    config.model.latent_dim = 32
    config.objective.reconstruction = 0.001  # about 30 of the mean squared error
    config.train.batch_size = 128
    config.eval.append = (
        "area_px2",
        "perimeter_px",
        "equivalent_diameter_px",
        "major_axis_px",
        "minor_axis_px",
        "feret_max_px",
        "feret_min_px",
        "hull_area_px2",
        "hull_perimeter_px",
        "rms_chord_px",
    )
    config.eval.trees = 300  # of a few hundred objects many are close to a draw, which 100 votes settle by chance
    return base.apply_shape_variant(config, variant, "shape_vae_cells")
