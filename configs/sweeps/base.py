"""What the ablations of this folder share: short trials on the simulated plates, one of which is held out."""

from collections.abc import Mapping

from bie_jax.evaluation.scores.keys import LOGISTIC_REGRESSION, MACRO_F1, PER_PLATE, leave_out
from bie_jax.tuning.sweep import Axis, Grid, Score, Share, Sweep

# Two to four minutes for a VQ-VAE's trial on one of two busy cores. Hand-made features do not depend on what varies.
_SHORT = {
    "train.epochs": 12,
    "train.eval_every_epochs": 4,
    "optimizer.warmup_epochs": 1,
    "optimizer.cooldown_epochs": 0,
    "eval.umap": False,
    "eval.classical_baseline": False,
    "eval.trees": 10,
    "eval.folds": 2,
    "eval.bootstrap": 100,
}


def ablation(axes: Mapping[str, Axis], **fixed: object) -> Sweep:
    """Every combination with three seeds; plate SIM004 is held out of training and of the choice.

    Args:
        axes: what varies.
        fixed: further keys for all trials, with "__" for the points in them, e.g. `model__encoder="vit"`.
    """
    return Sweep(
        axes=axes,
        fixed=_SHORT | {key.replace("__", "."): value for key, value in fixed.items()},
        search=Grid(),
        metric=Score(PER_PLATE, leave_out("plate"), LOGISTIC_REGRESSION, MACRO_F1, maximize=True),
        seeds=(0, 1, 2),
        num_folds=0,
        held_out=(("SIM004",),),
        halving=None,
        at_once=2,
        each=Share(cores=1, gpus=0, memory_gb=0),
    )
