"""Images that are said to be masks of one kind and are of another."""

import json
import re

import imagecodecs
import numpy as np
import pytest

from bie_jax.input.image_set import open_image_set
from data.build import main
from data.errors import BuildError
from data.fields.mask_checks import problem_of_binary, problem_of_grey, problem_of_labels


def _objects(values=(1, 2, 3, 4)):
    """[40, 50] with four rectangles apart."""
    labels = np.zeros((40, 50), np.uint16)
    for value, box in zip(values, (np.s_[2:8, 2:8], np.s_[12:20, 12:22], np.s_[25:35, 5:15], np.s_[25:35, 30:45])):
        labels[box] = value
    return labels


ONE = _objects((0, 0, 0, 255))


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        (ONE, None),
        (np.where(ONE, 254, 1), None),
        (np.full((5, 6), 255), None),
        (_objects((0, 0, 40, 60000)) > 0, None),
        (
            _objects((16384, 32768, 49151, 65535)),
            r"5 levels \(0, 16384, 32768, 49151, 65535\).*--mask=labels.*--mask=grey",
        ),
        (np.linspace(0, 1, 30).reshape(5, 6), "30 levels"),
        (_objects() > 2.5, None),
        (np.pad(np.tile(np.pad(np.ones((2, 2)), 2), (4, 4)), 2), "16 objects apart.*--mask=labels"),
        (255 - ONE, "bright background"),
    ],
)
def test_binary(mask, problem):
    found = problem_of_binary(mask)
    assert (found is None) == (problem is None)
    if problem is not None:
        assert re.search(problem, found)


def test_grey():
    assert problem_of_grey(np.linspace(0, 1, 30).reshape(5, 6)) is None
    assert "bright background" in problem_of_grey(255 - ONE)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (_objects(), None),
        (_objects((0, 0, 0, 7)), None),
        (_objects((1, 2, 2, 4)), None),  # one of three in two parts
        (np.zeros((5, 6), int), None),
        (np.full((5, 6), 3), None),
        (_objects((255,) * 4), "one number, 255, in 4 parts: a binary mask"),
        (_objects((1, 1, 2, 2)), "2 numbers, 2 of them in several parts"),
        (np.random.default_rng(0).integers(0, 9, (40, 50)), "in several parts, as intensities"),
        (np.where(_objects(), _objects(), 9), "the number 9 in its four corners"),
    ],
)
def test_labels(labels, problem):
    found = problem_of_labels(labels)
    assert found == problem if problem is None else problem in found


def _command(tmp_path, name, stack, *arguments):
    np.save(tmp_path / f"{name}.npy", stack)
    source = (f"--source={tmp_path / f'{name}.npy'}", f"--data-dir={tmp_path / 'sets'}", "--workers=1")
    return [name, "--kind=shapes", "--points=16", *source, *arguments]


def test_a_label_image_where_a_mask_is_expected(tmp_path):
    command = _command(tmp_path, "mine", _objects())  # [H, W] is one image
    with pytest.raises(BuildError, match=r"mine.npy: the mask has 5 levels .*--mask=labels.*; --skip-bad=FILE.csv"):
        main(command)
    main([*command, "--mask=labels"])
    assert open_image_set("mine", tmp_path / "sets").metadata["object"].tolist() == [1, 2, 3, 4]


def test_fields_without_cells_are_counted(tmp_path, capsys):
    stack = np.stack([np.zeros((40, 50)), _objects(), np.zeros((40, 50))])
    main(_command(tmp_path, "mine", stack.astype(np.uint16), "--mask=labels"))
    read = open_image_set("mine", tmp_path / "sets")
    assert read.metadata["object"].tolist() == [1, 2, 3, 4]
    assert "without an example: 2, e.g. plate mine, well , site 1" in capsys.readouterr().out
    notes = json.loads((read.directory / "build.json").read_text())
    assert notes["without an example"] == ["plate mine, well , site 1", "plate mine, well , site 3"]


def test_grey_masks_by_choice(tmp_path):
    disc = np.exp(-((np.mgrid[:40, :50] - np.array([20, 25])[:, None, None]) ** 2).sum(axis=0) / 50)
    main(_command(tmp_path, "mine", disc[None], "--mask=grey"))
    radius = np.sqrt(50 * np.log(2))
    area = open_image_set("mine", tmp_path / "sets").metadata["area_px"][0]
    assert abs(area / (np.pi * radius**2) - 1) < 0.05


def test_intensities_around_which_no_objects_are_cut(tmp_path):
    """--label-mask with a channel that is an image."""
    pixels = np.random.default_rng(0).integers(0, 9, (1, 40, 50, 2))
    np.save(tmp_path / "a.npy", pixels.astype(np.uint16))
    with pytest.raises(BuildError, match=r"in several parts, as intensities.*channel 1"):
        main(
            ["mine", f"--source={tmp_path / 'a.npy'}", "--label-mask=1", "--crop=8", f"--data-dir={tmp_path / 'sets'}"]
        )


def test_a_jpeg_keeps_no_numbers(tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.jpg").write_bytes(imagecodecs.jpeg8_encode(_objects().astype(np.uint8)))
    source = (f"--source={tmp_path / 'masks'}", "--layout=folder", f"--data-dir={tmp_path / 'sets'}", "--mask=labels")
    with pytest.raises(BuildError, match=r"a.jpg: a JPEG does not keep numbers"):
        main(["mine", "--kind=shapes", *source])
