"""What can be refused is refused for all trials, in one line that names the trial and the key."""

import pytest

from bie_jax.config.schema import ConfigError
from bie_jax.tuning.check import check_all
from bie_jax.tuning.sweep import TPE, Choice, Logged, Options, Range, Score
from bie_jax.tuning.trials import Base
from configs import base
from tests.unit.tuning.sweeps import sweep

STRATIFIED = Score("per_plate", "stratified_k_fold", "random_forest", "macro_f1", maximize=True)


def _check(datasets, **changes):
    overrides = {"data.data_dir": datasets, "eval.folds": 2}
    check_all(
        Base("configs/vqvae_idr0093.py:tiny", overrides, base.tables()), sweep(**({"metric": STRATIFIED} | changes))
    )


def test_a_sweep_that_can_be_is_let_through(datasets):
    _check(datasets, num_folds=2, held_out=((), ("SIM001",)))
    _check(datasets, metric=Logged("val/loss", maximize=False))
    _check(datasets, axes={"optimizer.lr": Range(1e-4, 1e-2, log=True, whole=False)}, search=TPE(5, 0))
    for split, classifier, metric in (
        ("leave_plate_out", "logistic_regression", "balanced_accuracy"),
        ("not_same_well", "1_nearest_neighbors", "accuracy"),
        ("plate_identity", "logistic_regression", "macro_f1"),
    ):
        _check(datasets, metric=Score("raw", split, classifier, metric, maximize=True))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"axes": {"model.latnt_dim": Choice((8, 16))}},
            "trial latnt_dim=8,seed=0: the configuration has no such key: .*latnt_dim",
        ),
        (
            {"axes": {"model.latent_dim": Choice((8, 0))}},
            r"trial latent_dim=0,seed=0: .*config.model.latent_dim=0: ",
        ),
        ({"axes": {"optimizer.lr": Choice((0.1, "fast"))}}, "trial lr=fast,seed=0: config.optimizer.lr='fast'"),
        ({"axes": {"optimizer.lr": Range(1e-3, 1e3, log=True, whole=False)}, "search": TPE(5, 0)}, "lr=1000,seed=0"),
        ({"axes": {"optimizer.momentum": Choice((0.5, 0.8))}}, "optimizer.momentum=0.5 is read only by"),
        ({"axes": {"method": Options({"a": {"config": "configs/none.py"}})}}, "trial method=a,seed=0: .*is no file"),
        ({"held_out": (("SIM009",),)}, "data.held_out names SIM009, which 'plate' .* does not have; there are SIM001"),
        ({"num_folds": 999}, "too few for data.num_folds=999"),
        (
            {"metric": Score("raw", "leave_donor_out", "random_forest", "macro_f1", maximize=True)},
            "the metric's split='leave_donor_out' is none that it writes; there are stratified_k_fold, leave_plate_out",
        ),
        (
            {"metric": Score("raw", "leave_plate_out", "svm", "macro_f1", maximize=True)},
            "the metric's classifier='svm' is none that it writes; there are logistic_regression, random_forest",
        ),
        (
            {
                "held_out": (("SIM001",),),
                "metric": Score("raw", "held_out", "random_forest", "macro_f1", maximize=True),
            },
            "the metric's split='held_out' is none",
        ),
        ({"axes": {"optimizer.lr": Choice((0.1, 0.1 + 1e-9))}}, "the sweep makes lr=0.1,seed=0 twice"),
    ],
)
def test_what_cannot_be_is_refused(datasets, changes, message):
    with pytest.raises(ConfigError, match=message) as refused:
        _check(datasets, **changes)
    assert len(str(refused.value).splitlines()) <= 2
