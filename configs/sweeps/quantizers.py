"""Which quantizer? 15 trials; experiments/ablations has the table.

python launch.py --config=configs/vqvae_idr0093.py:simulated --sweep=configs/sweeps/quantizers.py
"""

from bie_jax.tuning.sweep import Options, Sweep
from configs.sweeps.base import ablation


def get_sweep() -> Sweep:
    """Four quantizers of 128 codes, or as near as they come, with and without a start by k-means."""
    settings = {
        "ema": {"model.quantizer.name": "ema"},
        "ema, k-means": {"model.quantizer.name": "ema", "model.quantizer.kmeans_iterations": 10},
        "gradient": {"model.quantizer.name": "gradient"},
        "residual": {
            "model.quantizer.name": "residual",
            "model.quantizer.num_residuals": 2,
            "model.quantizer.num_codes": 64,
        },
        "fsq": {
            "model.quantizer.name": "fsq",
            "model.quantizer.levels": (8, 4, 4),
            "model.quantizer.code_dim": 3,
        },
    }
    return ablation({"quantizer": Options(settings)})
