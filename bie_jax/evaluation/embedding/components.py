"""Fewer numbers that say most of what many say: principal components of a readout.

Profiles are commonly standardized and rotated like this before they are compared. Of 650 cells 12 components score
about as all 192 features do, or a little less (`experiments/shapes`).
"""

import dataclasses
import io
from pathlib import Path
from typing import Self

import numpy as np
from sklearn.decomposition import PCA

from bie_jax.config.schema import ConfigError
from bie_jax.files import integrity
from bie_jax.files.integrity import MadeFrom
from bie_jax.training import run_files


@dataclasses.dataclass(frozen=True)
class Components:
    """An affine map, fitted without labels.

    Attributes:
        mean: [D], subtracted.
        scale: [D], divided by; 1 where a number never varied.
        axes: [D, n], the directions of most variance, the first first.
    """

    mean: np.ndarray
    scale: np.ndarray
    axes: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """[N, D] -> [N, n] float32."""
        return ((features - self.mean) / self.scale @ self.axes).astype(np.float32)

    @classmethod
    def fit(cls, features: np.ndarray, count: int) -> Self:
        """Standardize, and rotate to the `count` principal axes of features [N, D].

        Raises:
            ConfigError: for more components than there are numbers or examples.
        """
        if count > min(features.shape):
            raise ConfigError(
                f"config.eval.components={count}: {len(features)} examples of {features.shape[1]} numbers have "
                f"{min(features.shape)} at most"
            )
        values = features.astype(np.float64)
        mean, scale = values.mean(axis=0), values.std(axis=0)
        scale = np.where(scale > 0, scale, 1.0)
        pca = PCA(count, svd_solver="full").fit((values - mean) / scale)
        return cls(mean, scale, np.asarray(pca.components_).T)

    def save(self, workdir: Path, made_from: MadeFrom) -> None:
        """Into a run's folder."""
        content = io.BytesIO()
        np.savez(content, mean=self.mean, scale=self.scale, axes=self.axes)
        integrity.write_bytes(workdir / run_files.COMPONENTS, content.getvalue(), made_from)

    @classmethod
    def load(cls, workdir: Path, made_from: MadeFrom) -> Self:
        """What the embedding of a run's set has left.

        Raises:
            FileNotFoundError: if it has not been embedded.
            DamagedFileError: if the file is not what was written.
            StaleFileError: if it was embedded otherwise.
        """
        path = workdir / run_files.COMPONENTS
        integrity.verify(path, run_files.EMBED_AGAIN, made_from)
        with np.load(path, allow_pickle=False) as stored:
            return cls(**{name: stored[name] for name in ("mean", "scale", "axes")})
