import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from skimage.measure import label

from data.studies.idr0093.study import IDR0093
from data.studies.simulated import simulation
from data.studies.simulated.simulation import CHANNEL_NAMES, CONTROL, PHENOTYPES, Design, layout, simulate_site

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[4]
TRUTH = {
    "n_cells",
    "n_nuclei",
    "multinucleate_fraction",
    "s_phase_fraction",
    "mitotic_fraction",
    "nuclear_radius_um",
    "cell_radius_um",
}


def _truth(design, treatment, strength=None):
    """Truth of every site of a treatment, over all plates."""
    wells = [w for w in layout(design) if w.treatment == treatment and strength in (None, w.strength)]
    return pd.DataFrame([simulate_site(design, well, site)[1] for well in wells for site in range(design.sites)])


def test_two_builds_give_the_same_bytes(tmp_path):
    """In two processes, whose hashes differ."""
    program = """
import sys
from data.studies.simulated.build import build_simulated
from data.studies.simulated.simulation import Design
build_simulated(sys.argv[1], Design(plates=2, control_wells=2, wells_per_sirna=1, sites=1, image_size=32), 1)
"""
    found = []
    for name in ("first", "second"):
        command = [sys.executable, "-c", program, str(tmp_path / name)]
        subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        found.append({str(path.relative_to(tmp_path / name)): path.read_bytes() for path in files})
    assert len(found[0]) == 8
    assert found[0].keys() == found[1].keys()
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []


def test_a_site_is_the_same_drawn_alone():
    design = Design(plates=2, control_wells=2, wells_per_sirna=1, sites=3, image_size=32)
    well = layout(design)[7]
    in_order = [simulate_site(design, well, site) for site in range(3)]
    image, truth = simulate_site(design, layout(design)[7], 2)
    np.testing.assert_array_equal(image, in_order[2][0])
    assert truth == in_order[2][1]
    assert (in_order[0][0] != in_order[1][0]).any()
    other, _ = simulate_site(dataclasses.replace(design, seed=94), well, 2)
    assert (other != image).any()


@pytest.mark.parametrize(
    ("treatment", "expected"),
    [
        (CONTROL, [6.374, 3.018, 3.102, 7.32, 0.715]),
        ("KIF11-like", [9.441, 2.385, 4.395, 6.489, 0.052]),
        ("ECT2-like", [0.798, 2.67, 1.958, 4.611, 0.616]),
    ],
)
def test_the_pixels_are_those_of_this_version_of_the_set(treatment, expected):
    """A fixed random pattern, multiplied with one field of each. Other pixels need another `build.VERSION`."""
    design = Design(plates=1, control_wells=2, wells_per_sirna=1, sites=1, image_size=128)
    well = next(well for well in layout(design) if well.treatment == treatment)
    pattern = np.random.default_rng(0).standard_normal((128, 128, 1))
    found = (pattern * simulate_site(design, well, 0)[0]).mean(axis=(0, 1))
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_a_camera_that_is_blinded_says_its_most():
    """And does not begin anew at 0."""
    counts = simulation._camera(np.random.default_rng(0), np.full((8, 8), 1e7), None)
    assert (counts == 65535).all()


def test_no_two_fields_share_their_random_numbers():
    """Wells that differ in nothing but their number, or their plate's, hold other cells."""
    design = Design(plates=1, control_wells=1, wells_per_sirna=1, sites=2, strengths=(1.0,))
    well = layout(design)[0]
    fields = [
        simulate_site(design, well, 0),
        simulate_site(design, well, 1),
        simulate_site(design, dataclasses.replace(well, index=5), 0),
        simulate_site(design, dataclasses.replace(well, plate=dataclasses.replace(well.plate, index=5)), 0),
    ]
    assert len({truth["cell_radius_um"] for _, truth in fields}) == len(fields)


def test_layout():
    design = Design()
    wells = pd.DataFrame([{**dataclasses.asdict(well), "plate": well.plate.name} for well in layout(design)])
    assert len(wells) == design.plates * design.wells
    assert design.images == len(wells) * design.sites
    assert not wells.duplicated(["plate", "name"]).any()
    counts = wells.groupby(["plate", "treatment"]).size().unstack()
    assert (counts[CONTROL] == design.control_wells).all()
    assert (counts.drop(columns=CONTROL) == design.wells_per_sirna * len(design.strengths)).all(axis=None)
    assert set(counts.columns) == set(PHENOTYPES)
    # rows B to O and columns 2 to 23: the plate's edge stays empty
    assert wells["name"].str.fullmatch(r"[B-O](0[2-9]|1\d|2[0-3])").all()
    # one siRNA, one strength
    assert (wells.groupby("sirna")["strength"].nunique() == 1).all()
    # no treatment keeps its place from plate to plate, so that position does not tell it
    places = wells[wells["treatment"] == "ECT2-like"].groupby("plate")["name"].agg(frozenset)
    assert places.nunique() == design.plates


def test_a_design_larger_than_a_plate_is_refused():
    with pytest.raises(ValueError, match="needs 3"):
        layout(Design(control_wells=300))


def test_images_and_truth(tiny_set):
    assert tiny_set.simulated
    assert "SIMULATED" in tiny_set.description
    assert tiny_set.channel_names == CHANNEL_NAMES
    assert tiny_set.metadata.columns.tolist()[:5] == ["plate", "well", "site", "label", "source"]
    assert set(tiny_set.metadata) >= TRUTH | {"sirna", "strength"}
    assert not tiny_set.metadata.isna().any(axis=None)
    assert (tiny_set.metadata.loc[tiny_set.metadata["label"] == CONTROL, "strength"] == 0).all()
    images = tiny_set.images(range(len(tiny_set)))
    assert images.dtype == np.uint16
    # signal in every channel, and no pixel at either end of the camera's range
    assert (images.std(axis=(0, 1, 2)) > 50).all()
    assert images.min() > 50
    assert images.max() < 65535


def test_its_channels_are_called_as_in_the_screen_that_it_stands_for():
    """A warm start finds a channel by its name."""
    assert CHANNEL_NAMES[:4] == tuple(IDR0093.channels)


def test_kif11_like_cells_are_few_and_have_many_nuclei():
    design = Design(plates=1, control_wells=6, wells_per_sirna=6, sites=3, strengths=(1.0,))
    control, kif11 = _truth(design, CONTROL), _truth(design, "KIF11-like")
    per_cell = [table["n_nuclei"].sum() / table["n_cells"].sum() for table in (control, kif11)]
    assert per_cell[1] > 1.5 * per_cell[0]
    assert kif11["n_cells"].mean() < 0.6 * control["n_cells"].mean()
    assert kif11["mitotic_fraction"].mean() > control["mitotic_fraction"].mean() + 0.05


@pytest.mark.parametrize(
    ("treatment", "column", "sign"),
    [
        ("MTOR-like", "cell_radius_um", -1),
        ("CDK1-like", "nuclear_radius_um", 1),
        ("RRM1-like", "s_phase_fraction", 1),
        ("ECT2-like", "multinucleate_fraction", 1),
    ],
)
def test_effects_are_graded(treatment, column, sign):
    """Stronger siRNAs, stronger phenotypes; in the truth, over enough cells that chance does not turn the order."""
    strengths = (0.35, 0.65, 1.0)
    design = Design(plates=1, control_wells=8, wells_per_sirna=8, sites=3, strengths=strengths)
    means = [_truth(design, CONTROL)[column].mean()]
    means += [_truth(design, treatment, strength)[column].mean() for strength in strengths]
    assert (np.diff(means) * sign > 0).all(), means


def _pixels(design, treatment):
    """Every site of a treatment: [n, H, W, C]."""
    wells = [well for well in layout(design) if well.treatment == treatment]
    return np.stack([simulate_site(design, well, site)[0] for well in wells for site in range(design.sites)])


def test_pixels_show_what_the_truth_says():
    design = Design(plates=1, control_wells=4, wells_per_sirna=4, sites=3, strengths=(1.0,))
    control = _pixels(design, CONTROL)

    def nuclear_area(images):
        areas = [np.bincount(label(image > 600).ravel())[1:] for image in images[..., CHANNEL_NAMES.index("DNA")]]
        return np.median([area for area in np.concatenate(areas) if area > 50])

    assert nuclear_area(_pixels(design, "CDK1-like")) > 1.25 * nuclear_area(control)
    # silent nucleoli: the brightest of the nascent RNA goes
    rna = CHANNEL_NAMES.index("nascent RNA")
    brightest = [np.percentile(images[..., rna], 99.5) for images in (_pixels(design, "POLR1A-like"), control)]
    assert brightest[0] < 0.7 * brightest[1]


def test_batch_effect_shows_in_the_controls():
    """Plates differ by more than their wells do: what a method must not take for biology."""
    design = Design(plates=4, control_wells=8, wells_per_sirna=1, sites=3, strengths=(1.0,))
    by_well = (design.plates, design.control_wells, -1, len(CHANNEL_NAMES))
    means = _pixels(design, CONTROL).reshape(by_well).mean(axis=2)
    between = means.mean(axis=1).var(axis=0, ddof=1)
    within = means.var(axis=1, ddof=1).mean(axis=0) / design.control_wells
    # F(3, 28) > 4.57 has p < 0.01
    assert np.median(between / within) > 4.57, between / within


@pytest.mark.parametrize("size", [0, 127, 512])
def test_a_size_the_textures_cannot_cover_is_refused(size):
    with pytest.raises(ValueError, match=f"image_size={size}: expected an even number"):
        Design(image_size=size)
