import numpy as np
import pytest

NAMES = ("membrane", "DNA (Hoechst)", "RNA")


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    pictures = rng.normal(500, 30, (4, 40, 36, 3))
    y, x = np.mgrid[:40, :36]
    for image, radius in zip(pictures, (4, 5, 6, 7)):
        for cy, cx in ((10, 10), (28, 24)):
            image[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] += (200, 3000, 900)
    return pictures.astype(np.uint16)
