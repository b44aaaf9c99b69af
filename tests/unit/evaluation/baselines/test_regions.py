import numpy as np
import skimage.draw
import skimage.measure

from bie_jax.evaluation.baselines.channels import dna_channel
from bie_jax.evaluation.baselines.regions import (
    SHAPE_PROPERTIES,
    region_features,
    region_names,
    segment_nuclei,
    shape_properties,
)
from tests.unit.evaluation.baselines.conftest import NAMES


def test_shapes_against_scikit_image():
    labels = np.zeros((80, 90), np.int32)
    labels[skimage.draw.ellipse(20, 25, 9, 16, rotation=0.6)] = 1
    labels[skimage.draw.disk((55, 60), 13)] = 2
    labels[60:75, 5:30] = 3
    labels[64:71, 12:30] = 0  # a C: not convex
    labels[0, 88] = 4  # one pixel, at the border
    got = shape_properties(labels, 0.5)
    for row, region in zip(got, skimage.measure.regionprops(labels)):
        value = dict(zip(SHAPE_PROPERTIES, row))
        np.testing.assert_allclose(value["area_um2"], region.area * 0.25)
        # scikit-image leaves out the extent of a pixel, 1/12 px^2 in each direction.
        axes = [4 * np.sqrt((a / 4) ** 2 + 1 / 12) for a in (region.axis_major_length, region.axis_minor_length)]
        np.testing.assert_allclose([value["major_axis_um"], value["minor_axis_um"]], 0.5 * np.array(axes))
        np.testing.assert_allclose(value["eccentricity"], np.sqrt(1 - (axes[1] / axes[0]) ** 2), atol=1e-7)
        np.testing.assert_allclose(
            value["solidity"], region.solidity, atol=0.03
        )  # hulls of corners and of edge centers
    disc = dict(zip(SHAPE_PROPERTIES, got[1]))
    np.testing.assert_allclose(disc["perimeter_um"], 2 * np.pi * 13 * 0.5, rtol=0.05)
    np.testing.assert_allclose(disc["form_factor"], 1, atol=0.08)
    square = np.zeros((12, 12), np.int32)
    square[2:10, 2:10] = 1
    value = dict(zip(SHAPE_PROPERTIES, shape_properties(square, 1.0)[0]))
    np.testing.assert_allclose(value["perimeter_um"], np.pi / 4 * 32)
    np.testing.assert_allclose(value["solidity"], 1)
    assert shape_properties(np.zeros((5, 5), np.int32), 1.0).shape == (0, 7)


def test_segmentation_finds_discs_and_drops_specks():
    y, x = np.mgrid[:64, :64]
    channel = np.full((64, 64), 200.0)
    for cy, cx in ((15, 15), (15, 45), (45, 30)):
        channel[(y - cy) ** 2 + (x - cx) ** 2 < 49] = 3000
    channel[(y - 15) ** 2 + (x - 15) ** 2 < 4] = 200  # a hole
    channel[60, 60] = 3000  # a speck
    labels = segment_nuclei(channel, 0.5)
    assert labels.max() == 3
    assert labels[15, 15] > 0
    assert labels[60, 60] == 0
    assert segment_nuclei(np.full((9, 9), 5.0), 0.5).max() == 0


def test_regions_count_objects_of_the_dna_channel(images):
    assert dna_channel(NAMES) == 1
    assert dna_channel(("a", "b")) == 0
    names = region_names(NAMES)
    got = region_features(images, NAMES, 0.5)
    assert got.shape == (4, len(names))
    column = dict(zip(names, got.T))
    np.testing.assert_array_equal(column["region_count"], 2)
    assert (np.diff(column["region_area_um2_mean"]) > 0).all()  # radius 4, 5, 6, 7
    labels = segment_nuclei(images[0, ..., 1], 0.5)
    for c, channel in enumerate(NAMES):
        pixels = images[0, ..., c].astype(float)
        means = [pixels[labels == k].mean() for k in (1, 2)]
        sds = [pixels[labels == k].std() for k in (1, 2)]
        np.testing.assert_allclose(column[f"region_{channel}_object_mean"][0], np.mean(means))
        np.testing.assert_allclose(column[f"region_{channel}_object_mean_sd"][0], np.std(means))
        np.testing.assert_allclose(column[f"region_{channel}_within_object_sd"][0], np.mean(sds))
        np.testing.assert_allclose(column[f"region_{channel}_background"][0], pixels[labels == 0].mean())


def test_regions_scale_with_the_pixel_and_are_zero_without_objects(images):
    names = region_names(NAMES)
    small = dict(zip(names, region_features(images, NAMES, 0.5).T))
    large = dict(zip(names, region_features(images, NAMES, 1.0).T))
    np.testing.assert_allclose(large["region_area_um2_mean"], 4 * small["region_area_um2_mean"])
    np.testing.assert_allclose(large["region_major_axis_um_mean"], 2 * small["region_major_axis_um_mean"])
    np.testing.assert_allclose(large["region_solidity_mean"], small["region_solidity_mean"])
    empty = dict(zip(names, region_features(np.full((1, 9, 9, 3), 42), NAMES, 0.5)[0]))
    assert empty.pop("region_RNA_background") == 42
    assert {value for name, value in empty.items() if "background" not in name} == {0.0}
