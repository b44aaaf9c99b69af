import numpy as np
import pytest
import scipy.stats
import skimage.draw
import skimage.measure

from bie_jax.evaluation.baselines import baselines

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


@pytest.mark.parametrize("dtype", [np.uint16, np.uint8, np.float32])
def test_intensity_against_numpy_and_scipy(images, dtype):
    images = (images // 20).astype(dtype)
    got = baselines.intensity_features(images, NAMES)
    names = baselines.intensity_names(NAMES)
    assert got.shape == (4, 36) == (4, len(names))
    for n in range(4):
        for c, channel in enumerate(NAMES):
            pixels = images[n, ..., c].ravel().astype(float)
            expected = [pixels.mean(), pixels.std(), scipy.stats.skew(pixels)]
            expected += [np.percentile(pixels, q) for q in baselines.PERCENTILES]
            start = names.index(f"intensity_{channel}_mean")
            np.testing.assert_allclose(got[n, start : start + 12], expected, rtol=1e-9)
    assert names[15:24] == [f"intensity_DNA (Hoechst)_p{q}" for q in baselines.PERCENTILES]


def test_every_feature_of_blank_and_saturated_images_is_finite():
    images = np.zeros((4, 20, 20, 3), np.uint16)
    images[1] = 65535
    images[2, ..., 1] = 700
    images[3, 5, 5] = 65535
    for got in (
        baselines.intensity_features(images, NAMES),
        baselines.texture_features(images, NAMES),
        baselines.region_features(images, NAMES, 0.5),
        baselines.block_averaged_pixels(images, np.array([0.0, 1.0, 2.0]), 8),
    ):
        assert np.isfinite(got).all()


def loop_texture(grey, distance):
    """Haralick's definitions on a co-occurrence matrix counted pair by pair."""
    height, width = grey.shape
    total = np.zeros((baselines.GREY_LEVELS, baselines.GREY_LEVELS))
    for angle in (0, np.pi / 4, np.pi / 2, 3 * np.pi / 4):
        dr, dc = round(np.sin(angle) * distance), round(np.cos(angle) * distance)
        counts = np.zeros_like(total)
        for r in range(height):
            for c in range(width):
                if 0 <= r + dr < height and 0 <= c + dc < width:
                    counts[grey[r, c], grey[r + dr, c + dc]] += 1
                    counts[grey[r + dr, c + dc], grey[r, c]] += 1
        total += counts / counts.sum() / 4
    i, j = np.mgrid[: len(total), : len(total)]
    mean = (i * total).sum()
    variance = ((i - mean) ** 2 * total).sum()
    return {
        "contrast": ((i - j) ** 2 * total).sum(),
        "homogeneity": (total / (1 + (i - j) ** 2)).sum(),
        "energy": np.sqrt((total**2).sum()),
        "correlation": ((i - mean) * (j - mean) * total).sum() / variance,
    }


def test_texture_against_counting_pairs(images):
    image = images[:1, :18, :16]
    got = dict(zip(baselines.texture_names(NAMES), baselines.texture_features(image, NAMES)[0]))
    for c, channel in enumerate(NAMES):
        grey = baselines._grey_levels(image[0, ..., c])
        assert grey.min() == 0
        assert grey.max() == baselines.GREY_LEVELS - 1
        for distance in baselines.TEXTURE_DISTANCES_PX:
            for quantity, value in loop_texture(grey, distance).items():
                np.testing.assert_allclose(got[f"texture_{channel}_{quantity}_{distance}px"], value, rtol=1e-6)


def test_texture_ignores_brightness_and_knows_constant_channels(images):
    plain = baselines.texture_features(images, NAMES)
    brighter = baselines.texture_features(images.astype(np.float64) * 3 + 100, NAMES)
    np.testing.assert_allclose(plain, brighter, rtol=1e-6)
    blank = dict(
        zip(baselines.texture_names(("a", "b")), baselines.texture_features(np.full((1, 9, 9, 2), 7), ("a", "b"))[0])
    )
    assert blank["texture_a_contrast_1px"] == 0
    assert (
        blank["texture_a_homogeneity_1px"] == blank["texture_a_energy_3px"] == blank["texture_a_correlation_6px"] == 1
    )
    assert blank["correlation_a_b"] == 0


def test_correlation_between_channels(images):
    got = baselines.texture_features(images, NAMES)
    names = baselines.texture_names(NAMES)
    assert got.shape[1] == len(names)
    for n in range(4):
        expected = np.corrcoef(images[n].reshape(-1, 3).T.astype(float))
        np.testing.assert_allclose(got[n, -3:], [expected[0, 1], expected[0, 2], expected[1, 2]])
    assert names[-3:] == [
        "correlation_membrane_DNA (Hoechst)",
        "correlation_membrane_RNA",
        "correlation_DNA (Hoechst)_RNA",
    ]


def test_shapes_against_scikit_image():
    labels = np.zeros((80, 90), np.int32)
    labels[skimage.draw.ellipse(20, 25, 9, 16, rotation=0.6)] = 1
    labels[skimage.draw.disk((55, 60), 13)] = 2
    labels[60:75, 5:30] = 3
    labels[64:71, 12:30] = 0  # a C: not convex
    labels[0, 88] = 4  # one pixel, at the border
    got = baselines.shape_properties(labels, 0.5)
    for row, region in zip(got, skimage.measure.regionprops(labels)):
        value = dict(zip(baselines.SHAPE_PROPERTIES, row))
        np.testing.assert_allclose(value["area_um2"], region.area * 0.25)
        # scikit-image leaves out the extent of a pixel, 1/12 px^2 in each direction.
        axes = [4 * np.sqrt((a / 4) ** 2 + 1 / 12) for a in (region.axis_major_length, region.axis_minor_length)]
        np.testing.assert_allclose([value["major_axis_um"], value["minor_axis_um"]], 0.5 * np.array(axes))
        np.testing.assert_allclose(value["eccentricity"], np.sqrt(1 - (axes[1] / axes[0]) ** 2), atol=1e-7)
        np.testing.assert_allclose(
            value["solidity"], region.solidity, atol=0.03
        )  # hulls of corners and of edge centers
    disc = dict(zip(baselines.SHAPE_PROPERTIES, got[1]))
    np.testing.assert_allclose(disc["perimeter_um"], 2 * np.pi * 13 * 0.5, rtol=0.05)
    np.testing.assert_allclose(disc["form_factor"], 1, atol=0.08)
    square = np.zeros((12, 12), np.int32)
    square[2:10, 2:10] = 1
    value = dict(zip(baselines.SHAPE_PROPERTIES, baselines.shape_properties(square, 1.0)[0]))
    np.testing.assert_allclose(value["perimeter_um"], np.pi / 4 * 32)
    np.testing.assert_allclose(value["solidity"], 1)
    assert baselines.shape_properties(np.zeros((5, 5), np.int32), 1.0).shape == (0, 7)


def test_segmentation_finds_discs_and_drops_specks():
    y, x = np.mgrid[:64, :64]
    channel = np.full((64, 64), 200.0)
    for cy, cx in ((15, 15), (15, 45), (45, 30)):
        channel[(y - cy) ** 2 + (x - cx) ** 2 < 49] = 3000
    channel[(y - 15) ** 2 + (x - 15) ** 2 < 4] = 200  # a hole
    channel[60, 60] = 3000  # a speck
    labels = baselines.segment_nuclei(channel, 0.5)
    assert labels.max() == 3
    assert labels[15, 15] > 0
    assert labels[60, 60] == 0
    assert baselines.segment_nuclei(np.full((9, 9), 5.0), 0.5).max() == 0


def test_regions_count_objects_of_the_dna_channel(images):
    assert baselines.dna_channel(NAMES) == 1
    assert baselines.dna_channel(("a", "b")) == 0
    names = baselines.region_names(NAMES)
    got = baselines.region_features(images, NAMES, 0.5)
    assert got.shape == (4, len(names))
    column = dict(zip(names, got.T))
    np.testing.assert_array_equal(column["region_count"], 2)
    assert (np.diff(column["region_area_um2_mean"]) > 0).all()  # radius 4, 5, 6, 7
    labels = baselines.segment_nuclei(images[0, ..., 1], 0.5)
    for c, channel in enumerate(NAMES):
        pixels = images[0, ..., c].astype(float)
        means = [pixels[labels == k].mean() for k in (1, 2)]
        sds = [pixels[labels == k].std() for k in (1, 2)]
        np.testing.assert_allclose(column[f"region_{channel}_object_mean"][0], np.mean(means))
        np.testing.assert_allclose(column[f"region_{channel}_object_mean_sd"][0], np.std(means))
        np.testing.assert_allclose(column[f"region_{channel}_within_object_sd"][0], np.mean(sds))
        np.testing.assert_allclose(column[f"region_{channel}_background"][0], pixels[labels == 0].mean())


def test_regions_scale_with_the_pixel_and_are_zero_without_objects(images):
    names = baselines.region_names(NAMES)
    small = dict(zip(names, baselines.region_features(images, NAMES, 0.5).T))
    large = dict(zip(names, baselines.region_features(images, NAMES, 1.0).T))
    np.testing.assert_allclose(large["region_area_um2_mean"], 4 * small["region_area_um2_mean"])
    np.testing.assert_allclose(large["region_major_axis_um_mean"], 2 * small["region_major_axis_um_mean"])
    np.testing.assert_allclose(large["region_solidity_mean"], small["region_solidity_mean"])
    empty = dict(zip(names, baselines.region_features(np.full((1, 9, 9, 3), 42), NAMES, 0.5)[0]))
    assert empty.pop("region_RNA_background") == 42
    assert {value for name, value in empty.items() if "background" not in name} == {0.0}


@pytest.mark.parametrize(("size", "block"), [((13, 9), 2), ((8, 8), 1), ((11, 20), 3)])
def test_block_averages_against_a_loop(size, block):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 65535, (2, *size, 2)).astype(np.uint16)
    scale = np.array([2.0, 0.0])
    got = baselines.block_averaged_pixels(images, scale, largest_side_px=8)
    rows, columns = size[0] // block, size[1] // block
    assert max(rows, columns) <= 8
    top, left = (size[0] - rows * block) // 2, (size[1] - columns * block) // 2
    expected = np.zeros((2, rows, columns, 2))
    for r in range(rows):
        for c in range(columns):
            y, x = top + r * block, left + c * block
            expected[:, r, c] = images[:, y : y + block, x : x + block].mean(axis=(1, 2)) / [2.0, 1.0]
    np.testing.assert_allclose(got, expected.reshape(2, -1), rtol=1e-6)


def test_rotation_keeps_every_distance():
    features = np.random.default_rng(0).normal(size=(20, 300)).astype(np.float32)
    rotated = baselines.rotate_to_span(features)
    assert rotated.shape == (20, 20)
    # Distances decide what principal components of any subset of the rows are.
    np.testing.assert_allclose(rotated @ rotated.T, features @ features.T, atol=1e-3)
    assert baselines.rotate_to_span(features.T) is not None
    np.testing.assert_array_equal(baselines.rotate_to_span(features.T), features.T)


def test_channels_must_fit_the_images(images):
    for function in (baselines.intensity_features, baselines.texture_features):
        with pytest.raises(ValueError, match=r"C = 2 \(a, b\)"):
            function(images, ("a", "b"))
