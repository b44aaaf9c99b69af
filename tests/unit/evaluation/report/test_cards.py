import copy

from bie_jax.evaluation.report.cards import cards
from bie_jax.evaluation.report.ordering import best_row


def test_the_best_baseline_is_the_best_of_all(finished):
    """Under any normalization and by either classifier, as the trained encoder's own best is chosen."""
    scores = copy.deepcopy(finished[1])
    assert best_row(scores, trained=False)["feature_set"] != "trained_encoder"
    for row in scores["rows"]:
        if row["metric"] == "macro_f1" and row["split"] == "leave_plate_out":
            named = (row["feature_set"], row["normalization"], row["classifier"])
            row["value"] = {
                ("intensity", "per_plate", "random_forest"): 0.9,
                ("trained_encoder", "per_plate", "logistic_regression"): 0.8,
            }.get(named, 0.5)
        elif row["feature_set"] == "pixel_pca":
            row["value"] = 1.0  # another split or metric
    shown = cards(scores, None)
    assert "<b>0.800</b><span>macro F1, leave-plate-out</span>" in shown
    assert "Trained encoder (vqvae), per plate, logistic regression" in shown
    assert "<b>0.900</b><span>best baseline</span>" in shown
    assert "Intensity, per plate, random forest: 0.100 ahead of the trained encoder" in shown
    trained = scores["feature_sets"]["trained_encoder_per_plate"]
    assert f"<b>{trained['knn']['accuracy']:.3f}</b><span>1-NN accuracy</span>" in shown
    assert f"<b>{trained['plate_identity']['macro_f1']:.3f}</b><span>plate identity</span>" in shown
