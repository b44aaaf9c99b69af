"""Names of channels and labels, in the languages of others."""

from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from bie_jax.files.foreign_text import MOST_OF_NAME, in_figure, in_html, save_figure, visible
from bie_jax.shapes.distance_matrix import normalized_distances
from bie_jax.training.writers.image_pictures import draw_reconstructions
from bie_jax.training.writers.outline_pictures import draw_outlines

HOSTILE = (
    "$",
    "$x^$",
    "a$_b$^",
    r"\frac$\nope$",
    r"a\$b$c\$$",
    "$$$",
    "_hidden",
    "<b>&amp;</script>\"'",
    "two\nlines\tand\0nul",
    "\x1b[31mred",
    "bytes \udcff of no UTF-8",
    "\u202egnp.exe",
    "\u05e9\u05dc\u05d5\u05dd",
    "\U0001f52c \u4e2d",
    "long" * 500,
    "",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_picture_of_reconstructions_shows_any_channel(tmp_path, name):
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 2)).astype(np.float32)
    path = tmp_path / "step.png"
    draw_reconstructions(images, images, (name, "$ok"), None, f"{name}: {name}", path)
    with Image.open(path) as picture:
        assert min(picture.size) > 100


@pytest.mark.parametrize("name", ["$x^$", "\udcff"])
def test_a_picture_of_outlines_shows_any_title(tmp_path, name):
    angle = 2 * np.pi * np.arange(16) / 16
    d = normalized_distances(np.stack([np.sin(angle), 2 * np.cos(angle)], axis=1)[None])[0]
    draw_outlines(d, d, f"{name} {name}", tmp_path / "step.png")
    assert (tmp_path / "step.png").stat().st_size > 1000


@pytest.mark.parametrize("name", HOSTILE)
def test_a_figure_shows_dollars_as_they_are(tmp_path, name):
    figure = Figure()
    text = figure.text(0.5, 0.5, in_figure(name))
    save_figure(figure, tmp_path / "a.svg")
    drawn, is_formula = text._preprocess_math(text.get_text())
    assert not is_formula
    assert drawn == visible(name) or (len(visible(name)) > MOST_OF_NAME and "…" in drawn)
    assert len(drawn) <= MOST_OF_NAME


@pytest.mark.parametrize("name", HOSTILE)
def test_a_page_gives_the_name_back(name):
    page = f'<p title="{in_html(name)}">{in_html(name)}</p>'
    page.encode("utf-8")
    seen = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            seen.append((tag, attrs))

        def handle_data(self, data):
            seen.append(data)

    reader = Reader()
    reader.feed(page)
    reader.close()
    shown = visible(name, keep="\n\t")
    assert seen == [("p", [("title", shown)]), *([shown] if shown else [])]


def test_what_does_not_print_is_written_out():
    assert visible("a\n\0\x1b\udcff\u202eb") == r"a\n\x00\x1b\udcff\u202eb"
    assert visible("µm, ünï \u05e9 中") == "µm, ünï \u05e9 中"
    assert visible(3) == "3"
