"""What a sweep file may say, and what it makes."""

import math
from pathlib import Path

import pytest

from bie_jax.config.flags import config_of
from bie_jax.config.schema import ConfigError
from bie_jax.tuning.sweep import (
    TPE,
    Choice,
    Grid,
    Halving,
    Logged,
    Options,
    Random,
    Range,
    Share,
    check_apart,
    load_sweep,
)
from bie_jax.tuning.trials import Base, describe_setting, planned_settings, trials_of
from tests.unit.tuning.sweeps import SCORE, sweep

BASE = Base("configs/vqvae_idr0093.py:tiny", {"data.name": "other"}, ())


def test_the_files_of_configs_are_sweeps():
    found = sorted(path.stem for path in Path("configs/sweeps").glob("*.py") if path.stem not in ("__init__", "base"))
    assert found == ["channels", "contrastive", "latent_size", "learning_rate", "methods", "quantizers"]
    for name in found:
        loaded = load_sweep(f"configs/sweeps/{name}.py")
        assert len(loaded.seeds) == 3
        assert loaded.held_out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axes": {}}, "axes is empty"),
        ({"axes": {"model.latent_dim": Choice(())}}, "the axis model.latent_dim has no values"),
        ({"axes": {"model.latent_dim": Choice((8, 8))}}, "has a value twice"),
        ({"axes": {"optimizer.lr": Range(1e-4, 1e-2, log=True, whole=False)}}, "is a Range, of which a Grid knows no"),
        (
            {"axes": {"optimizer.lr": Range(0.0, 1e-2, log=True, whole=False)}, "search": Random(2, 0)},
            "goes from 0.0 to 0.01: low has to be under high above 0",
        ),
        ({"axes": {"optimizer.lr": Range(1.0, 1.0, log=False, whole=False)}, "search": TPE(2, 0)}, "low has to be und"),
        ({"search": Random(0, 0)}, "search.num_settings=0: at least 1"),
        ({"seeds": ()}, r"seeds=\(\): one or more"),
        ({"seeds": (1, 1)}, "each once"),
        ({"num_folds": 1}, "num_folds=1: 0, or from 2"),
        ({"halving": Halving(1, 3)}, "halving looks at unfinished trials"),
        (
            {
                "halving": Halving(1, 3),
                "metric": Logged("val/loss", maximize=False),
                "held_out": (("P1",), ("P2",)),
            },
            "losses of other images are not comparable",
        ),
        ({"halving": Halving(0, 3), "metric": Logged("val/loss", maximize=False)}, "first_epochs from 1"),
        ({"at_once": 0}, "at_once=0"),
        ({"each": Share(0, 0, 0)}, "cores from 1"),
        ({"fixed": {"train.seed": 3}}, "train.seed is what seeds of the sweep sets"),
        ({"axes": {"data.held_out": Choice(("a", "b"))}}, "data.held_out is what held_out of the sweep sets"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_in_one_line(tmp_path, monkeypatch, changes, message):
    from tests.unit.tuning import sweeps

    file = tmp_path / "mine.py"
    file.write_text("from tests.unit.tuning.sweeps import made\ndef get_sweep():\n    return made\n")
    monkeypatch.setattr(sweeps, "made", sweep(**changes), raising=False)
    with pytest.raises(ConfigError, match=message) as refused:
        load_sweep(str(file))
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"--sweep={file}: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "the file has no function get_sweep"),
        ("def get_sweep(): return 3", "its get_sweep returns int, not a bie_jax.Sweep"),
        ("def get_sweep(): return 1 / 0", "line 1: ZeroDivisionError"),
    ],
)
def test_a_file_that_is_no_sweep(tmp_path, text, message):
    file = tmp_path / "mine.py"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_sweep(str(file))
    with pytest.raises(ConfigError, match=r"is no file; sweeps lie in configs/sweeps/"):
        load_sweep(str(tmp_path / "other.py"))


def test_a_key_that_varies_is_not_typed_too():
    for key in ("model.latent_dim", "train.seed", "data.fold"):
        with pytest.raises(ConfigError, match=rf"config.{key}=1: .*sets this key; leave it out"):
            check_apart(sweep(), {key: 1})
    options = sweep(axes={"size": Options({"small": {"optimizer.lr": 0.1}})})
    with pytest.raises(ConfigError, match="the sweep's axis size sets this key"):
        check_apart(options, {"optimizer.lr": 1})
    check_apart(sweep(), {"optimizer.lr": 1})


def test_a_grid_is_every_combination_with_every_seed_fold_and_part():
    one = sweep(
        axes={"model.latent_dim": Choice((8, 16, 32)), "optimizer.name": Choice(("lamb", "sgd"))},
        num_folds=2,
        held_out=(("P1",), ("P2", "P3")),
    )
    settings = planned_settings(one)
    assert settings == [
        {"model.latent_dim": size, "optimizer.name": name} for size in (8, 16, 32) for name in ("lamb", "sgd")
    ]
    trials = [trial for setting in settings for trial in trials_of(BASE, one, setting)]
    assert len({trial.name for trial in trials}) == len(trials) == 6 * 2 * 2 * 2
    last = config_of(trials[-1].arguments)
    assert (last.model.latent_dim, last.optimizer.name, last.train.seed) == (32, "sgd", 1)
    assert (last.data.num_folds, last.data.fold, last.data.held_out) == (2, 1, ("P2", "P3"))
    assert last.data.name == "other"
    assert last.model.quantizer.num_codes == 32  # follows, as on the command line
    assert trials[-1].name == "latent_dim=32,name=sgd,out=P2+P3,fold=1,seed=1"


def test_the_command_line_changes_what_is_fixed_and_options_change_the_file():
    one = sweep(
        axes={"method": Options({"a": {"config": "configs/ae_idr0093.py:tiny"}, "b": {"optimizer.lr": 0.5}})},
        fixed={"data.name": "theirs", "eval.trees": 3},
        seeds=(4,),
    )
    first, second = (config_of(trials_of(BASE, one, setting)[0].arguments) for setting in planned_settings(one))
    assert (first.model.name, second.model.name) == ("ae", "vqvae")
    assert second.optimizer.lr == 0.5
    assert {(config.data.name, config.eval.trees, config.train.seed) for config in (first, second)} == {("other", 3, 4)}


def test_random_settings_are_the_same_each_time_differ_and_lie_within():
    axes = {
        "optimizer.lr": Range(1e-4, 1e-1, log=True, whole=False),
        "model.latent_dim": Range(1, 4, log=False, whole=True),
        "model.channels": Choice(("joint", "independent")),
    }
    settings = planned_settings(sweep(axes=axes, search=Random(200, 3)))
    assert settings == planned_settings(sweep(axes=axes, search=Random(200, 3)))
    assert settings != planned_settings(sweep(axes=axes, search=Random(200, 4)))
    rates = sorted(math.log10(setting["optimizer.lr"]) for setting in settings)
    assert -4 <= rates[0] < rates[-1] <= -1
    assert abs(rates[100] + 2.5) < 0.3  # the middle of the decades, not of the numbers
    counts = [sum(setting["model.latent_dim"] == size for setting in settings) for size in (1, 2, 3, 4)]
    assert sum(counts) == 200
    assert min(counts) > 30
    few = planned_settings(sweep(axes={"model.channels": axes["model.channels"]}, search=Random(5, 0)))
    assert len(few) == 2  # there are no more


def test_a_search_that_proposes_plans_nothing():
    assert planned_settings(sweep(search=TPE(3, 0))) == []


def test_settings_are_named_by_what_tells_keys_apart():
    assert describe_setting({"model.name": "ae", "optimizer.lr": 0.00012345}) == "name=ae,lr=0.0001234"
    assert describe_setting({"model.name": "ae", "optimizer.name": "sgd"}) == "model.name=ae,optimizer.name=sgd"


def test_names_of_folders_are_short_and_hold_nothing_odd():
    one = sweep(axes={"what ever": Options({f"a/b {'x' * 300}{end}": {"optimizer.lr": 0.1} for end in "yz"})})
    names = [trial.name for setting in planned_settings(one) for trial in trials_of(BASE, one, setting)]
    assert len(set(names)) == 4
    assert all(len(name) <= 120 and "/" not in name and " " not in name for name in names)


def test_what_a_sweep_is_does_not_depend_on_how_many_run_at_once():
    assert sweep(at_once=1, each=Share(4, 1, 8)).described() == sweep().described()
    for change in ({"seeds": (0,)}, {"search": Random(2, 0)}, {"metric": SCORE.__class__("raw", *SCORE_REST)}):
        assert sweep(**change).described() != sweep().described()
    assert isinstance(sweep().search, Grid)


SCORE_REST = ("leave_plate_out", "logistic_regression", "macro_f1", True)
