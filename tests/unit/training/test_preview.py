"""Pictures of what a training step will see: a row for each example, a column for the evaluation and each view."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from bie_jax.config.rules import check_config
from bie_jax.config.schema import ConfigError
from bie_jax.config.stored import check_workdir, save_config
from bie_jax.objectives import METHODS
from bie_jax.training.preview import draw_views
from bie_jax.training.writers import view_pictures
from configs import shape_vae_mnist
from data.records.writer import Description, write_set

pytestmark = pytest.mark.slow

COLUMNS = ["evaluation", *map(str, range(1, 17))]


@pytest.fixture
def figures(monkeypatch):
    """Every figure that is saved."""
    saved, save = [], view_pictures.save_figure
    monkeypatch.setattr(
        view_pictures, "save_figure", lambda figure, *a, **k: (saved.append(figure), save(figure, *a, **k))
    )
    return saved


def _texts(labels):
    return [label.get_text() for label in labels]


def test_eight_images_and_sixteen_views_of_each_before_any_training(tiny_config, tmp_path, figures):
    tiny_config.data.augment.update({"area": (0.3, 0.9), "offset": 0.2, "channel_dropout": 0.3})
    config, workdir = check_config(tiny_config), tmp_path / "run"
    (path,) = draw_views(config, workdir)
    assert path == workdir / "views.png"
    assert [file.name for file in workdir.iterdir()] == ["views.png"]
    with Image.open(path) as picture:
        width, height = picture.size
    assert width > 17 * 90
    assert height > 8 * 90
    (figure,) = figures
    (axis,) = figure.axes
    assert _texts(axis.get_xticklabels()) == COLUMNS
    assert len(axis.get_yticks()) == 8
    (mosaic,) = axis.images
    assert mosaic.get_array().shape == (8 * 33, 17 * 33, 3)  # of 32 pixels and a gap
    assert figure.get_suptitle() == "simulated (simulated): 8 training images, 16 random views of each"
    assert "area (0.3, 0.9), offset 0.2, channel_dropout 0.3; 32 x 32 pixels" in axis.get_xlabel()
    assert "aspect" not in axis.get_xlabel()
    assert _texts(figure.legends[0].get_texts()) == ["DNA", "nascent RNA", "PCNA", "protein", "membrane"]
    tiles = mosaic.get_array().reshape(8, 33, 17, 33, 3)[:, :32, :, :32].swapaxes(1, 2)
    assert len({tile.tobytes() for row in tiles for tile in row}) == 8 * 17
    check_workdir(config, workdir)  # a run may begin there


def test_the_first_column_is_what_an_evaluation_sees(tiny_config, tmp_path, figures):
    """Without any change a window of the whole image is that too."""
    tiny_config.data.augment.update({"flip": False, "rotate90": False, "brightness": 0.0})
    draw_views(check_config(tiny_config), tmp_path)
    mosaic = figures[0].axes[0].images[0].get_array().reshape(8, 33, 17, 33, 3)
    np.testing.assert_array_equal(mosaic, np.broadcast_to(mosaic[:, :, :1], mosaic.shape))
    assert "a random window and nothing else" in figures[0].axes[0].get_xlabel()


def test_further_views_that_are_made_otherwise_have_a_picture_of_their_own(tiny_config, tmp_path, monkeypatch, figures):
    def two_more(config):
        return config.data, config.data.model_copy(update={"crop_size": (16, 16)})

    monkeypatch.setitem(METHODS, "vqvae", dataclasses.replace(METHODS["vqvae"], other_views=two_more))
    paths = draw_views(check_config(tiny_config), tmp_path)
    assert [path.name for path in paths] == ["views.png", "views_2.png"]
    assert figures[1].axes[0].images[0].get_array().shape == (8 * 17, 17 * 17, 3)
    assert "16 x 16 pixels" in figures[1].axes[0].get_xlabel()


def test_the_folder_of_a_run_takes_pictures_of_its_own_views_alone(tiny_config, tmp_path):
    save_config(check_config(tiny_config), tmp_path)
    tiny_config.data.augment.blur = 1.0
    with pytest.raises(ConfigError, match=r"augment.blur: the workdir has 0.0, this run 1.0"):
        draw_views(check_config(tiny_config), tmp_path)
    assert not list(tmp_path.glob("*.png"))


@dataclasses.dataclass(frozen=True)
class _Stars:
    """Outlines with more or less deep arms."""

    def identity(self, part):
        return repr(part)

    def examples(self, part):
        angle = 2 * np.pi * np.arange(32) / 32
        radius = 10 + 0.2 * part * np.cos(3 * angle) + np.cos(angle)
        points = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1).astype(np.float32)[..., None]
        yield points, {"plate": "P", "well": f"B{part:02d}", "site": 1, "label": "x", "source": f"star {part}"}


def test_views_of_outlines_are_outlines(tmp_path, figures):
    description = Description(
        name="stars",
        version="1.0.0",
        kind="shapes",
        channel_names=("outline",),
        pixel_size_um=None,
        image_shape=(32, 2, 1),
        dtype="float32",
        columns={"plate": str, "well": str, "site": int, "label": str, "source": str},
        text="stars",
        simulated=True,
    )
    write_set(description, range(24), _Stars(), tmp_path)
    config = shape_vae_mnist.get_config("tiny")
    config.data.update({"name": "stars", "data_dir": str(tmp_path), "crop_size": (32, 32)})
    (path,) = draw_views(check_config(config), tmp_path / "run")
    assert path.stat().st_size > 10_000
    (axis,) = figures[0].axes
    assert len(axis.lines) == 8 * 17
    assert "reindex start_and_direction, noise 0.05, stretch 0.3, unevenness 0.3; 32 points" in axis.get_xlabel()
    # Each lies in its place: the row's and the column's.
    for number, line in enumerate(axis.lines):
        column, row = divmod(number, 8)
        center = line.get_xydata()[:-1].mean(axis=0)
        np.testing.assert_allclose(center, [axis.get_xticks()[column], axis.get_yticks()[row]], atol=0.01)
