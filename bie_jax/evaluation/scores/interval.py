"""How far a score would move if other wells had been tested."""

import numpy as np

_NUMBERS_HELD = 10**7  # of resamples times wells, or classes, at a time: 80 MB


def bootstrap_interval(
    labels: np.ndarray,
    predictions: np.ndarray,
    clusters: np.ndarray,
    resamples: int,
    seed: int,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of macro F1 (of its mean, where there are several draws), from resampling whole wells.

    Images of one well are not independent draws of its treatment, so the well is the unit (cluster bootstrap; Field and
    Welsh 2007, doi 10.1111/j.1467-9868.2007.00593.x). Where every well holds one class, wells are drawn within each
    class, so that no resample loses a class. The classifiers are not fitted again: the interval covers the test images,
    not the training.

    Args:
        labels: [N] str.
        predictions: [N] str, or [S, N] of S draws of what was random; all are resampled alike.
        clusters: [N], the well (plate and well together) of each image.
        resamples: number of bootstrap samples, at least 1.
        seed: of the resampling.
        level: coverage asked for, in (0, 1).

    Returns:
        Lower and upper end.
    """
    if resamples < 1:
        raise ValueError(
            f"the bootstrap needs at least one resample, got {resamples}; set --config.eval.bootstrap=1000"
        )
    draws = np.atleast_2d(predictions)
    classes = np.unique(np.concatenate([labels, *draws]))
    wells, well_of_image = np.unique(clusters, return_inverse=True)
    truth = np.searchsorted(classes, labels)
    support = np.zeros((len(wells), len(classes)))
    np.add.at(support, (well_of_image, truth), 1)
    hits, predicted = (np.zeros((len(draws), *support.shape)) for _ in range(2))
    for draw, values in enumerate(draws):
        guess = np.searchsorted(classes, values)
        np.add.at(hits[draw], (well_of_image, truth), truth == guess)
        np.add.at(predicted[draw], (well_of_image, guess), 1)

    supported = support > 0  # [wells, K]
    one_class_each = bool((supported.sum(axis=1) == 1).all())
    strata = supported.argmax(axis=1) if one_class_each else np.zeros(len(wells), dtype=int)
    rng = np.random.default_rng(seed)
    macro = np.empty(resamples)
    block = max(1, _NUMBERS_HELD // (len(draws) * max(len(wells), len(classes))))
    for start in range(0, resamples, block):
        count = min(block, resamples - start)
        weights = np.zeros((count, len(wells)))
        for stratum in np.unique(strata):
            members = np.flatnonzero(strata == stratum)
            weights[:, members] = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=count)
        drawn, guessed = weights @ support, weights @ predicted  # [count, K], [S, count, K]
        f1 = 2 * (weights @ hits) / np.maximum(drawn + guessed, 1)
        # A class that a resample neither holds nor predicts has no F1; it is left out of that resample's mean.
        macro[start : start + count] = (f1.sum(axis=-1) / (drawn + guessed > 0).sum(axis=-1)).mean(axis=0)
    low, high = np.quantile(macro, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
