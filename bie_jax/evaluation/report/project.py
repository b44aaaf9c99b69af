"""Two-dimensional maps of an embedding, fitted without labels.

Principal components, and UMAP (McInnes et al. 2018, arXiv 1802.03426). The predecessor gave UMAP 70 % of the labels,
and the clusters it showed were partly those labels; here neither function takes any.
"""

import warnings

import numpy as np
from sklearn.decomposition import PCA

from bie_jax.evaluation.scores.normalization import standardize


def pca_projection(features: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """First two principal components of the standardized features.

    The largest loading of each component is positive (scikit-learn's rule), so that two runs do not mirror each other.

    Args:
        features: [N, D] float, N >= 2.

    Returns:
        Coordinates [N, 2] float32, and the shares of the variance on the two axes; a missing second axis (D = 1) is 0.
    """
    standard = standardize(features)
    components = min(2, *standard.shape)
    if not standard.any():  # all columns constant: every share would be 0 / 0
        return np.zeros((len(standard), 2), np.float32), (0.0, 0.0)
    pca = PCA(components, svd_solver="full").fit(standard)
    coordinates = np.zeros((len(standard), 2), np.float32)
    coordinates[:, :components] = pca.transform(standard)
    shares = np.zeros(2)
    shares[:components] = pca.explained_variance_ratio_
    return coordinates, (float(shares[0]), float(shares[1]))


def umap_projection(features: np.ndarray, seed: int, neighbors: int = 15) -> np.ndarray:
    """UMAP of the standardized features; the same seed gives the same map.

    Args:
        features: [N, D] float, N >= 4.
        seed: of the initial positions and of the sampling.
        neighbors: size of the neighborhood; smaller when there are fewer images.

    Returns:
        [N, 2] float32, arbitrary units.

    Raises:
        ValueError: fewer than four images.
    """
    if len(features) < 4:
        raise ValueError(f"UMAP needs at least 4 images, got {len(features)}; set --config.eval.umap=False")
    with warnings.catch_warnings():
        # umap-learn says at import that its TensorFlow variant, which nothing here uses, is not there.
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        import umap  # compiles for seconds: only those who ask for a map should wait

    # One job: a seed makes UMAP sequential, and it warns when it has to say so itself. PCA as the start, as the
    # spectral one fails on disconnected neighborhoods and falls back to a random start.
    reducer = umap.UMAP(
        n_neighbors=min(neighbors, len(features) - 1), init="pca", random_state=seed, n_jobs=1, min_dist=0.1
    )
    return np.asarray(reducer.fit_transform(standardize(features).astype(np.float32)), dtype=np.float32)
