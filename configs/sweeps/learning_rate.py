"""What does a lower learning rate cost, and is it faster? 12 trials; experiments/ablations has the table.

python launch.py --config=configs/vqvae_idr0093.py:simulated --sweep=configs/sweeps/learning_rate.py

The predecessor reports seven times less training at a lower rate. Every run stops once three epochs are no better, so
look at the epochs beside the score.
"""

from bie_jax.tuning.sweep import Choice, Sweep
from configs.sweeps.base import ablation


def get_sweep() -> Sweep:
    """Four rates, stopped early."""
    return ablation(
        {"optimizer.lr": Choice((1e-4, 1e-3, 4e-3, 2e-2))},
        optimizer__min_lr=1e-6,
        train__epochs=24,
        train__eval_every_epochs=1,
        train__early_stopping_patience_epochs=3,
    )
