"""Numbers of a ranking against scikit-learn, scipy and counting by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, f1_score

pytest.importorskip("optuna")

from bie_jax.config.schema import ConfigError
from bie_jax.evaluation.scores.classification import classification_scores
from bie_jax.files import integrity
from bie_jax.tuning.folder import SweepFolder
from bie_jax.tuning.importance import importances
from bie_jax.tuning.ranking import Chosen, Row, as_text, choose, order, rank, sentences
from bie_jax.tuning.report.figures import places
from bie_jax.tuning.sweep import Choice, Logged, Range, Score
from bie_jax.tuning.trials import Base, planned_settings, trials_of
from bie_jax.tuning.values import Unit, unit_of, value_of_run
from tests.unit.tuning.sweeps import SCORE, sweep

BASE = Base("configs/vqvae_idr0093.py:tiny", {}, ())
UNSEEN = Score("raw", "unseen_by_encoder", "random_forest", "macro_f1", maximize=True)


def _scored(labels, predictions):
    return classification_scores(labels, predictions, np.arange(len(labels)), resamples=1, seed=0)


def _write_run(workdir, splits, *, losses=(0.5, 0.3, 0.4), baseline=0.2):
    """A run's scores of {split: (labels, predictions)} by both classifiers, and its log."""
    workdir.mkdir(parents=True)
    names = ("logistic_regression", "random_forest")
    classified = {split: _scored(*pair) for split, pair in splits.items()}
    sets, rows = {}, []
    for key, shift in (("trained_encoder", 0.0), ("random_encoder", -0.1), ("pixel_pca", -baseline)):
        for normalization, end in (("raw", ""), ("per_plate", "_per_plate")):
            sets[f"{key}{end}"] = {"classifiers": {name: classified for name in names}}
            rows += [
                {
                    "feature_set": key,
                    "normalization": normalization,
                    "split": split,
                    "classifier": name,
                    "metric": metric,
                    "value": found[metric] + shift,
                }
                for split, found in classified.items()
                for name in names
                for metric in ("macro_f1", "balanced_accuracy")
            ]
    rows.append(rows[0] | {"feature_set": "majority", "value": 9.0})
    scores = {
        "splits": {split: {} for split in splits},
        "feature_sets": sets,
        "rows": rows,
        "set": {"simulated": True},
        "normalizations": {"raw": "", "per_plate": ""},
    }
    integrity.write_json(workdir / "scores.json", scores)
    log = [{"step": 1, "epoch": float(i), "val/loss": value} for i, value in enumerate(losses, 1)]
    content = "".join(json.dumps(line) + "\n" for line in log).encode()
    (workdir / "metrics.jsonl").write_bytes(content)
    integrity.enter_log(workdir / "metrics.jsonl", len(content), integrity.hash_bytes(content))
    return scores


def _random(rng, count, classes="abc"):
    labels = rng.choice(list(classes), count)
    return labels, np.where(rng.random(count) < 0.6, labels, rng.choice(list(classes), count))


@pytest.mark.parametrize("metric", ["macro_f1", "balanced_accuracy"])
def test_folds_are_pooled_into_one_score(tmp_path, metric):
    """All out-of-fold predictions counted together, which is not the mean of the folds: one fold lacks a class."""
    rng = np.random.default_rng(0)
    folds = [_random(rng, 40), _random(rng, 25, "ab"), _random(rng, 60, "bc")]
    workdirs = [tmp_path / str(fold) for fold in range(3)]
    for workdir, fold in zip(workdirs, folds, strict=True):
        _write_run(workdir, {"unseen_by_encoder": fold})
    by = Score("per_plate", "unseen_by_encoder", "random_forest", metric, maximize=True)
    labels, predictions = (np.concatenate(parts) for parts in zip(*folds, strict=True))
    expected = (
        f1_score(labels, predictions, average="macro")
        if metric == "macro_f1"
        else balanced_accuracy_score(labels, predictions)
    )
    unit = unit_of(workdirs, by)
    assert unit.value == pytest.approx(expected)
    mean = np.mean([value_of_run(workdir, by) for workdir in workdirs])
    assert unit.value != pytest.approx(mean, abs=1e-3)
    assert unit.epochs == 3
    assert unit_of(workdirs[:1], by).value == pytest.approx(value_of_run(workdirs[0], by))


def test_a_unit_has_its_baselines_and_what_was_held_out(tmp_path):
    rng = np.random.default_rng(1)
    parts = {"leave_plate_out": _random(rng, 50), "held_out": _random(rng, 30)}
    _write_run(tmp_path / "a", parts)
    unit = unit_of([tmp_path / "a"], SCORE)
    assert unit.value == pytest.approx(f1_score(*parts["leave_plate_out"], average="macro"))
    assert unit.random_weights == pytest.approx(unit.value - 0.1)
    assert unit.best_baseline == pytest.approx(unit.value - 0.1)  # the better of the two, and not the majority
    assert unit.held_out == pytest.approx(f1_score(*parts["held_out"], average="macro"))
    logged = unit_of([tmp_path / "a"], Logged("val/loss", maximize=False))
    assert (logged.value, logged.random_weights) == (0.3, None)
    assert logged.held_out == unit.held_out


def test_a_metric_that_a_run_did_not_write(tmp_path):
    _write_run(tmp_path / "a", {"leave_plate_out": _random(np.random.default_rng(1), 20)})
    with pytest.raises(ConfigError, match="the metric val/kl was not logged; there are val/loss"):
        value_of_run(tmp_path / "a", Logged("val/kl", maximize=False))
    with pytest.raises(ConfigError, match="the run has no score macro F1, random forest, unseen by encoder, raw"):
        value_of_run(tmp_path / "a", UNSEEN)


def _unit(value, held=None):
    """With a confusion matrix of two classes whose macro F1 is `held` where all support is even."""
    confusion = None
    if held is not None:
        hits = round(50 * held)
        confusion = (np.array([[hits, 50 - hits], [50 - hits, hits]]), ["a", "b"])
    return Unit(value, value - 0.1, value - 0.05, held, confusion, 3.0)


def _row(number, values, *, held=None, stopped=False, planned=None, part=()):
    held = held or [None] * len(values)
    units = {(part, seed): _unit(value, one) for seed, (value, one) in enumerate(zip(values, held, strict=True))}
    return Row(number, {"size": number}, units, planned or len(values), None, None, stopped, 1.0, "")


def _nested(number, by_plate):
    units = {((plate,), 0): unit for plate, unit in by_plate.items()}
    return Row(number, {"size": number}, units, len(units), None, None, False, 1.0, "")


def test_rows_are_ordered_and_compared_pair_by_pair():
    rows = [
        _row(0, [0.5, 0.7, 0.6]),
        _row(1, [0.8, 0.9, 0.95]),
        _row(2, [0.99], planned=3),
        _row(3, []),
        _row(4, [1.0, 1.0, 1.0], stopped=True),
    ]
    ordered = order(rows, maximize=True)
    assert [row.number for row in ordered] == [1, 0, 2, 4, 3]
    differences = np.array([0.5 - 0.8, 0.7 - 0.9, 0.6 - 0.95])
    expected = stats.ttest_rel([0.5, 0.7, 0.6], [0.8, 0.9, 0.95]).confidence_interval(0.95)
    assert ordered[1].difference == pytest.approx(differences.mean())
    assert ordered[1].interval == pytest.approx((expected.low, expected.high))
    assert ordered[1].spread() == pytest.approx(np.std([0.5, 0.7, 0.6], ddof=1))
    assert ordered[0].difference is None
    assert ordered[2].difference == pytest.approx(0.99 - 0.8)  # the seed that both have
    assert ordered[2].interval is None
    assert ordered[3].difference is None  # stopped
    assert [row.number for row in order(rows[:2], maximize=False)] == [0, 1]


def test_choosing_among_noise_is_seen_to_flatter():
    """Twenty settings that differ by luck alone: the best looks better than it is, by what optimism says."""
    rng = np.random.default_rng(0)
    rows = order(
        [_row(i, rng.normal(0.6, 0.05, 3), held=list(rng.normal(0.5, 0.05, 3))) for i in range(20)], maximize=True
    )
    chosen = choose(rows, SCORE)
    assert chosen.chosen_by == pytest.approx(max(np.mean(row.values) for row in rows))
    assert chosen.held_out == pytest.approx(rows[0].mean("held_out"), abs=0.011)  # of whole images
    assert chosen.mean_chosen_by == pytest.approx(0.6, abs=0.02)
    assert chosen.mean_held_out == pytest.approx(0.5, abs=0.02)
    assert 0.02 < chosen.optimism < 0.12  # that the parts differ by .1 is none of it
    said = sentences(type("R", (), {"chosen": chosen, "rows": rows})())
    assert "which flatters the chosen one" in said[0]
    assert f"choosing flatters by {chosen.optimism:+.2g}" in said[0]


def test_each_held_out_part_has_a_choice_of_its_own():
    """Nested: what is chosen without P1 is tested on P1, and the confusions of both parts are counted together."""
    one = _nested(1, {"P1": _unit(0.9, 0.2), "P2": _unit(0.5, 0.9)})
    two = _nested(2, {"P1": _unit(0.6, 0.8), "P2": _unit(0.7, 0.4)})
    chosen = choose(order([one, two], maximize=True), SCORE)
    assert chosen.titles == {("P1",): "size=1", ("P2",): "size=2"}
    assert chosen.chosen_by == pytest.approx((0.9 + 0.7) / 2)
    assert chosen.held_out == pytest.approx((0.2 + 0.4) / 2)
    smaller = choose(order([one, two], maximize=False), Logged("val/loss", maximize=False))
    assert smaller.titles == {("P1",): "size=2", ("P2",): "size=1"}
    assert smaller.optimism is None  # a loss and an F1 are not compared


def test_optimism_is_the_lead_where_it_was_chosen_less_the_lead_where_nobody_looked():
    chosen = Chosen({}, chosen_by=0.9, held_out=0.6, mean_chosen_by=0.7, mean_held_out=0.55, comparable=True)
    assert chosen.optimism == pytest.approx((0.9 - 0.7) - (0.6 - 0.55))


def test_a_seed_that_lacks_a_held_out_part_is_not_counted_there():
    whole = {(("P1",), 0): _unit(0.9, 0.2), (("P2",), 0): _unit(0.5, 0.4)}
    row = Row(1, {"size": 1}, whole | {(("P1",), 1): _unit(0.9, 1.0)}, 4, None, None, False, 1.0, "")
    assert choose([row], SCORE).held_out == pytest.approx((0.2 + 0.4) / 2)


def test_places_on_the_axes_of_the_picture():
    by_decade = Range(1e-4, 1e-2, log=True, whole=False)
    np.testing.assert_allclose(places(by_decade, [1e-4, 1e-3, 1e-2]), [0, 0.5, 1])
    np.testing.assert_allclose(places(Range(0.0, 10.0, log=False, whole=False), [0, 2.5, 10]), [0, 0.25, 1])
    np.testing.assert_allclose(places(Choice(("a", "b", "c")), ["c", "a", "b"]), [1, 0, 0.5])
    np.testing.assert_allclose(places(Choice(("a",)), ["a"]), [0.5])


def test_without_a_held_out_part_no_honest_number_is_claimed():
    rows = order([_row(0, [0.5]), _row(1, [0.6])], maximize=True)
    chosen = choose(rows, SCORE)
    assert chosen.held_out is None
    assert "Nothing was held out of the choice" in sentences(type("R", (), {"chosen": chosen, "rows": rows})())[0]
    assert choose(order([_row(0, [])], maximize=True), SCORE) is None


def test_an_axis_that_matters_has_the_variance_and_noise_goes_to_the_seed():
    axes = {"matters": Choice((0, 1, 2)), "does not": Choice((0, 1))}
    rng = np.random.default_rng(0)
    rows = []
    for number, setting in enumerate(planned_settings(sweep(axes=axes))):
        units = {((), seed): _unit(setting["matters"] + 0.01 * rng.random()) for seed in (0, 1)}
        rows.append(Row(number, setting, units, 2, None, None, False, 1.0, ""))
    shares = importances(sweep(axes=axes), rows)
    assert sum(shares.values()) == pytest.approx(1)
    assert next(iter(shares)) == "matters"
    assert shares["matters"] > 0.95
    assert set(shares) == {"matters", "does not", "seed"}
    assert importances(sweep(axes=axes), rows[:1]) == {}


def test_a_sweep_is_ranked_from_its_folder_with_what_failed(tmp_path):
    rng = np.random.default_rng(2)
    one = sweep(axes={"model.latent_dim": Choice((8, 16, 32))}, held_out=(("P9",),))
    folder = SweepFolder(tmp_path)
    folder.begin(one.described())
    for number, setting in enumerate(planned_settings(one)):
        for trial in trials_of(BASE, one, setting):
            if setting["model.latent_dim"] == 32:
                folder.write(trial, number, "failed", None, "the loss of step 3 is not finite | it is nan", 2)
                continue
            parts = {"leave_plate_out": _random(rng, 50), "held_out": _random(rng, 50)}
            _write_run(folder.workdir(trial), parts)
            folder.write(trial, number, "finished", value_of_run(folder.workdir(trial), SCORE), "", 2)
    ranking = rank(one, folder)
    table = pd.read_parquet(tmp_path / "ranking.parquet")
    assert list(table["rank"]) == [1, 2, 3]
    assert table["model.latent_dim"].iloc[2] == 32
    assert table["why"].iloc[2].startswith("the loss of step 3 is not finite")
    assert table["score_that_chose"].dropna().is_monotonic_decreasing
    assert (table["score_that_chose"] - table["random_weights"]).dropna().to_numpy() == pytest.approx(0.1)
    trials = pd.read_parquet(tmp_path / "trials.parquet")
    assert len(trials) == 6
    assert set(trials["state"]) == {"finished", "failed"}
    text = as_text(ranking, one)
    assert text == (tmp_path / "ranking.md").read_text()
    lines = text.splitlines()
    assert len({line.count("|") for line in lines[:5]}) == 1  # a bar in a message makes no column
    assert "0 of 2; the loss of step 3" in lines[4]
