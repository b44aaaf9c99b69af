"""Does a contrastive term help, and which form of it? 15 trials; experiments/ablations has the table.

python launch.py --config=configs/vqvae_idr0093.py:simulated --sweep=configs/sweeps/contrastive.py
"""

from bie_jax.tuning.sweep import Options, Sweep
from configs.sweeps.base import ablation

_WEIGHT, _FORM, _CHANNELS = "objective.contrastive.weight", "objective.contrastive.form", "model.channels"


def get_sweep() -> Sweep:
    """None, and three forms; channels are compared where each is embedded alone, which has its own control."""
    settings = {
        "none": {_WEIGHT: 0.0},
        "views": {_WEIGHT: 0.1, _FORM: "views"},
        "replicates": {_WEIGHT: 0.1, _FORM: "replicates"},
        "none, channels alone": {_WEIGHT: 0.0, _CHANNELS: "independent"},
        "channels, channels alone": {_WEIGHT: 0.1, _FORM: "channels", _CHANNELS: "independent"},
    }
    return ablation({"contrastive term": Options(settings)})
