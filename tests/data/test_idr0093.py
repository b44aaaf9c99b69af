"""Fields of generated TIFFs through the builder; no image of idr0093 is in the repository."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from bie_jax.image_set import open_image_set
from data.idr0093.build import build_idr0093
from data.records import BuildError

ROOT = Path(__file__).resolve().parents[2]
CHANNELS = ("DAPI", "EU")
HEIGHT, WIDTH, CROP = 40, 50, 16
# plate, well as the table writes it, site
FIELDS = (("001", "B2", 1), ("001", "B2", 2), ("001", "B03", 1), ("002", "B02", 1))


def _pixels(field: int, channel: int) -> np.ndarray:
    return np.random.default_rng([field, channel]).integers(0, 65536, (HEIGHT, WIDTH), np.uint16)


@pytest.fixture
def screen(tmp_path) -> Path:
    """Folder with images, `images.csv` and `annotation.csv.gz`, all as it should be."""
    lines = []
    for f, (plate, well, site) in enumerate(FIELDS):
        for c, channel in enumerate(CHANNELS):
            name = f"{plate}_{well}_{site}_{channel}.tif"
            tifffile.imwrite(tmp_path / name, _pixels(f, c), compression="zlib")
            lines.append({"path": name, "plate": plate, "well": well, "site": site, "channel": channel})
    pd.DataFrame(lines).to_csv(tmp_path / "images.csv", index=False)
    annotation = (
        "Plate,Well,Gene Identifier,Gene Symbol,Control Type\n"
        "001,B2,3832,KIF11,positive control\n001,B3,,,negative control\n002,B02,983,CDK1,\n"
    )
    (tmp_path / "annotation.csv.gz").write_bytes(gzip.compress(annotation.encode()))
    return tmp_path


def _build(screen: Path, **arguments) -> Path:
    return build_idr0093(
        screen / "sets", screen / "images.csv", screen / "annotation.csv.gz", crop_px=CROP, **arguments
    )


def _change(screen: Path, change) -> None:
    table = pd.read_csv(screen / "images.csv", dtype=str)
    change(table).to_csv(screen / "images.csv", index=False)


def test_tiles_are_the_fields_cut_up(screen):
    _build(screen)
    built = open_image_set("idr0093", screen / "sets")
    assert built.channel_names == CHANNELS
    assert built.image_shape == (CROP, CROP, 2)
    assert len(built) == 4 * (HEIGHT // CROP) * (WIDTH // CROP) == 24
    fields = {(p, f"B0{w[-1]}", s): f for f, (p, w, s) in enumerate(FIELDS)}
    for i, row in built.metadata.iterrows():
        field, y, x = fields[row["plate"], row["well"], row["site"]], row["tile_y_px"], row["tile_x_px"]
        for c in range(2):
            np.testing.assert_array_equal(built[i][..., c], _pixels(field, c)[y : y + CROP, x : x + CROP])
    corners = built.metadata.loc[built.metadata["plate"] == "002", ["tile_y_px", "tile_x_px"]].to_numpy().tolist()
    assert corners == [[0, 0], [0, 16], [0, 32], [16, 0], [16, 16], [16, 32]]


def test_labels_are_gene_symbols_and_else_the_control_type(screen):
    _build(screen)
    metadata = open_image_set("idr0093", screen / "sets").metadata
    seen = metadata[["plate", "well", "label", "control_type"]].drop_duplicates().to_numpy().tolist()
    assert seen == [
        ["001", "B02", "KIF11", "positive control"],
        ["001", "B03", "negative control", "negative control"],
        ["002", "B02", "CDK1", ""],
    ]


def _drop_channel(screen):
    _change(screen, lambda table: table.drop(index=3))


def _remove_file(screen):
    (screen / "001_B2_2_EU.tif").unlink()


def _cut_file(screen):
    path = screen / "001_B2_2_EU.tif"
    path.write_bytes(path.read_bytes()[:-200])


def _empty_file(screen):
    (screen / "001_B2_2_EU.tif").write_bytes(b"")


def _other_size(screen):
    tifffile.imwrite(screen / "001_B2_2_EU.tif", np.zeros((HEIGHT, WIDTH - 1), np.uint16))


def _other_type(screen):
    tifffile.imwrite(screen / "001_B2_2_EU.tif", np.zeros((HEIGHT, WIDTH), np.float32))


def _two_pages(screen):
    tifffile.imwrite(screen / "001_B2_2_EU.tif", np.zeros((2, HEIGHT, WIDTH), np.uint16), photometric="minisblack")


# What is done to field (001, B02, 2), and what must be said about it.
DAMAGE = [
    (_drop_channel, "001, well B02, site 2: the table has no file for channel EU"),
    (_remove_file, "001, well B02, site 2, .*001_B2_2_EU.tif: no such file"),
    (_cut_file, "001, well B02, site 2, .*001_B2_2_EU.tif: (cut off|not a TIFF)"),
    (_empty_file, "001, well B02, site 2, .*001_B2_2_EU.tif: not a TIFF"),
    (_other_size, r"001, well B02, site 2, .*001_B2_2_EU.tif: \(40, 49\) uint16, the fields before it are \(40, 50\)"),
    (_other_type, "001, well B02, site 2, .*001_B2_2_EU.tif: 1 pages of .* float32"),
    (_two_pages, "001, well B02, site 2, .*001_B2_2_EU.tif: 2 pages"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE, ids=[damage.__name__[1:] for damage, _ in DAMAGE])
def test_a_field_that_cannot_be_used_stops_the_build_or_is_listed(screen, damage, message):
    damage(screen)
    with pytest.raises(BuildError, match=f"1 problems: plate {message}.*--skipped"):
        _build(screen)
    assert not (screen / "sets").exists()

    _build(screen, skipped=screen / "skipped.csv")
    built = open_image_set("idr0093", screen / "sets")
    assert len(built) == 18
    assert not ((built.metadata["well"] == "B02") & (built.metadata["site"] == 2)).any()
    assert "1 problems left out" in built.description
    listed = pd.read_csv(screen / "skipped.csv", dtype=str)
    assert listed[["plate", "well", "site"]].to_numpy().tolist() == [["001", "B02", "2"]]


def test_wells_without_annotation_are_named(screen):
    (screen / "annotation.csv.gz").write_bytes(
        gzip.compress(b"Plate,Well,Gene Symbol,Control Type\n001,B2,KIF11,\n001,B3,,\n")
    )
    with pytest.raises(BuildError, match="2 problems: .*B03, site 1: .*neither gene.*002, .*not in the annotation"):
        _build(screen)


def test_damage_inside_a_strip_stops_the_build(screen):
    path = screen / "002_B02_1_DAPI.tif"
    with tifffile.TiffFile(path) as file:
        start = file.pages.first.dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[start : start + 64] = b"\xff" * 64
    path.write_bytes(content)
    with pytest.raises(BuildError, match="002_B02_1_DAPI.tif: plate 002, well B02, site 1: pixels cannot be read"):
        _build(screen)
    assert not list((screen / "sets").iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="site"), r"columns \['site'\] are missing"),
        (lambda t: t.iloc[:0], "no lines"),
        (lambda t: t.assign(site="one"), "line 2: site 'one' is not a number"),
        (lambda t: t.assign(well="Z2"), "well 'Z2': expected"),
        (lambda t: pd.concat([t, t.iloc[2:3]]), "line 10: .*was listed before"),
    ],
    ids=["column missing", "empty", "site", "well", "listed twice"],
)
def test_tables_that_are_wrong_are_refused(screen, change, message):
    _change(screen, change)
    with pytest.raises(BuildError, match=f"images.csv.*{message}"):
        _build(screen)


def test_crop_larger_than_the_fields_is_refused(screen):
    with pytest.raises(BuildError, match="--crop=64 is larger than the fields, which are 40 x 50"):
        build_idr0093(screen / "sets", screen / "images.csv", screen / "annotation.csv.gz", crop_px=64)


def test_from_the_command_line(screen):
    command = [sys.executable, "-m", "data.build", "idr0093", f"--data_dir={screen / 'sets'}"]
    arguments = [f"--source={screen / 'images.csv'}", f"--annotation={screen / 'annotation.csv.gz'}", f"--crop={CROP}"]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "24 images 16 x 16 x 2 uint16" in done.stdout
    assert len(open_image_set("idr0093", screen / "sets")) == 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "idr0093 needs --source and --annotation"),
        (["--source=nothing.csv", "--annotation=nothing.csv"], "nothing.csv: no such file"),
        (["--source=README.md", "--annotation=nothing.csv"], "README.md"),
    ],
    ids=["nothing given", "no such table", "not a table"],
)
def test_bad_commands_end_in_one_line(tmp_path, arguments, message):
    (tmp_path / "README.md").write_text("# not a table\n")
    command = [sys.executable, "-m", "data.build", "idr0093", f"--data_dir={tmp_path / 'sets'}", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode != 0
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("sets/*/*/statistics.json"))
