"""VQ-VAE on 1,440 single cells of BBBC021 (DAPI, tubulin, actin; 16 bit), DMSO against protein-synthesis inhibition.

    python -m data.build bbbc021 --source=../shared/data/bbbc021_singlecell_subset
    python launch.py --config=configs/vqvae_bbbc021.py

`experiments/bbbc021` has the scores of each latent size beside the baselines.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """The configuration; 2 CPU cores, about 5 minutes."""
    config = base.get_config("simulated", "vqvae_bbbc021")
    config.data.name = "bbbc021"
    config.train.epochs = 30
    config.eval.probe_control = "DMSO"
    return config
