"""The steps of a configuration, one after the other: fitted to wells, and the same for plates that come later."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from bie_jax.config.schema import ProfileConfig
from bie_jax.evaluation.profiles.checks import check_features, check_rows
from bie_jax.evaluation.profiles.normalize import normalize
from bie_jax.evaluation.profiles.select import correlation_threshold, drop_outliers, variance_threshold
from bie_jax.evaluation.profiles.sphering import fit_sphering
from bie_jax.evaluation.profiles.tvn import fit_tvn

# (features [N, D], metadata of N rows, [N] bool controls) -> [N, D'].
Transform = Callable[[np.ndarray, pd.DataFrame, np.ndarray], np.ndarray]


class Step(NamedTuple):
    """A step as it was fitted.

    Attributes:
        name: as in `config.eval.profile.steps`.
        transform: what it does, to the wells that it was fitted to or to later ones.
        kept: [D'] int64, the column that each new column was before; None: new columns mix the former.
    """

    name: str
    transform: Transform
    kept: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Correction:
    """All steps as they were fitted, in their order."""

    steps: tuple[Step, ...]

    def transform(self, features: np.ndarray, metadata: pd.DataFrame, controls: np.ndarray) -> np.ndarray:
        """Wells, as a rule of plates that come later, in the space of those that the steps were fitted to.

        What is normalized within a scope, and what TVN whitens, is so by these wells' own controls; which features are
        kept, components, sphering and the axes of TVN are those that were fitted.

        Args:
            features: [N, D], as the wells of the fit were before any step.
            metadata: N rows.
            controls: [N] bool.

        Returns:
            [N, D'] float64.

        Raises:
            ValueError: what a step refuses, with its name.
        """
        controls = check_rows(controls, len(metadata), "controls")
        for step in self.steps:
            with _named(step.name):
                features = step.transform(features, metadata, controls)
        return features


def fit_correction(
    features: np.ndarray, metadata: pd.DataFrame, controls: np.ndarray, settings: ProfileConfig
) -> Iterator[tuple[Step, np.ndarray]]:
    """Each step of `settings.steps`, fitted to what the steps before it have left.

    Args:
        features: [N, D] finite, of wells.
        metadata: N rows.
        controls: [N] bool.
        settings: the `eval.profile` group of a configuration.

    Yields:
        The step, and the features [N, D'] behind it, float64.

    Raises:
        ValueError: what a step refuses, with its name.
    """
    features = check_features(features, len(metadata), missing=False)
    controls = check_rows(controls, len(metadata), "controls")
    for name in settings.steps:
        with _named(name):
            step = _FITS[name](features, metadata, controls, settings)
            features = step.transform(features, metadata, controls)
        yield step, features


def _normalize(features: np.ndarray, metadata: pd.DataFrame, controls: np.ndarray, settings: ProfileConfig) -> Step:
    group = settings.normalize

    def transform(features: np.ndarray, metadata: pd.DataFrame, controls: np.ndarray) -> np.ndarray:
        fitted = controls if group.rows == "controls" else np.ones(len(controls), dtype=bool)
        return normalize(features, metadata, group.scope, fitted, group.method, "zero")

    return Step("normalize", transform, np.arange(features.shape[1]))


def _select(features: np.ndarray, metadata: pd.DataFrame, controls: np.ndarray, settings: ProfileConfig) -> Step:
    group = settings.select
    kept = np.arange(features.shape[1])
    kept = kept[variance_threshold(features[:, kept], group.min_variance)]
    kept = kept[drop_outliers(features[:, kept], group.max_absolute)]
    kept = kept[correlation_threshold(features[:, kept], group.max_correlation)]
    return Step("select", lambda features, metadata, controls: features[:, kept], kept)


def _components(features: np.ndarray, metadata: pd.DataFrame, controls: np.ndarray, settings: ProfileConfig) -> Step:
    """Principal components of all wells, each as large as it varies; the largest weight of each is positive."""
    mean = features.mean(axis=0)
    # Of the covariance, [D, D]: there are more wells than features, as a rule by far.
    variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(features, rowvar=False)))
    axes = axes[:, np.argsort(variances)[::-1]][:, : settings.components]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return Step("components", lambda features, metadata, controls: (features - mean) @ axes, None)


def _sphere(features: np.ndarray, metadata: pd.DataFrame, controls: np.ndarray, settings: ProfileConfig) -> Step:
    group = settings.sphere
    fitted = fit_sphering(features[controls], group.rotation, group.epsilon, group.few_controls)
    kept = np.arange(features.shape[1]) if group.rotation == "ZCA" else None
    return Step("sphere", lambda features, metadata, controls: fitted.transform(features), kept)


def _tvn(features: np.ndarray, metadata: pd.DataFrame, controls: np.ndarray, settings: ProfileConfig) -> Step:
    fitted = fit_tvn(features[controls], settings.tvn_regularization)

    def transform(features: np.ndarray, metadata: pd.DataFrame, controls: np.ndarray) -> np.ndarray:
        return fitted.transform(features, metadata, settings.batch, controls)

    return Step("tvn", transform, None)


_FITS: dict[str, Callable[[np.ndarray, pd.DataFrame, np.ndarray, ProfileConfig], Step]] = {
    "normalize": _normalize,
    "select": _select,
    "components": _components,
    "sphere": _sphere,
    "tvn": _tvn,
}


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """What a step refuses begins with its name."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"step {name!r}: {error}") from None
