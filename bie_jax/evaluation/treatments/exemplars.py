"""Images that stand for a treatment: of the wells nearest to its profile, beside controls of the same plates."""

from typing import NamedTuple

import numpy as np

from bie_jax.evaluation.treatments.plan import TreatmentPlan


class Exemplar(NamedTuple):
    """Two images of one plate, as rows of the set: the first image of a treated well, and of a control well; -1 where
    the plate has no control."""

    treated: int
    control: int


def exemplars(
    wells: np.ndarray, profile: np.ndarray, treated: np.ndarray, plan: TreatmentPlan, most: int
) -> list[Exemplar]:
    """Of the wells of a treatment those most similar to its profile (cosine), the most similar first.

    Beside each stands, of the control wells of its plate, the one nearest (Euclidean) to the median of all controls.
    Nothing is picked by looking at images.

    Args:
        wells: [W, D], behind the last step.
        profile: [D], of the treatment.
        treated: [W] bool, its wells.
        plan: of the set.
        most: wells.
    """
    rows = np.flatnonzero(treated)
    norms = np.linalg.norm(wells[rows], axis=1) * np.linalg.norm(profile)
    similarity = np.where(norms > 0, wells[rows] @ profile / np.where(norms > 0, norms, 1), -1)
    chosen = rows[np.argsort(-similarity, kind="stable")[:most]]
    first_image = plan.images[np.unique(plan.well_of_image, return_index=True)[1]]
    plates = plan.wells["plate"].to_numpy()
    found = []
    for well in chosen:
        controls = np.flatnonzero(plan.controls & (plates == plates[well]))
        beside = -1
        if len(controls):
            middle = np.median(wells[plan.controls], axis=0)
            nearest = controls[np.linalg.norm(wells[controls] - middle, axis=1).argmin()]
            beside = int(first_image[nearest])
        found.append(Exemplar(int(first_image[well]), beside))
    return found
