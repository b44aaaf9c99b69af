import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bie_jax.image_set import open_image_set
from data.bbbc021.build import build_bbbc021
from data.records import BuildError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "bbbc021_singlecell_subset"
needs_real_data = pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/bbbc021_singlecell_subset is not here")

WELLS = """Plate,Well,Compound Name,Dose
P1,B2,DMSO,
P1,B03,taxol,1 micromolar
P2,B2,DMSO,
"""


def _arrays():
    plates, wells = ["P1", "P1", "P2", "P1"], ["B02", "B03", "B02", "B02"]
    return {
        "images": np.random.default_rng(0).integers(0, 65536, (4, 6, 6, 3), np.uint16),
        "channels": np.array(["DAPI", "Tubulin", "Actin"]),
        "moa": np.array(["DMSO", "Microtubule stabilizers", "DMSO", "DMSO"]),
        "plate": np.array(plates),
        "well": np.array(wells),
        "site": np.array([1, 2, 3, 1]),
        "cell": np.array([0, 0, 0, 7]),
    }


@pytest.fixture
def source(tmp_path):
    """A small folder of the real one's form."""
    folder = tmp_path / "source"
    folder.mkdir()
    np.savez_compressed(folder / "bbbc021_subset.npz", allow_pickle=False, **_arrays())
    (folder / "wells.csv").write_text(WELLS)
    return folder


def _refused(source, tmp_path, message):
    with pytest.raises(BuildError, match=message) as caught:
        build_bbbc021(tmp_path / "datasets", source)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "datasets").glob("*")), "something was left behind"


def test_built_as_given(source, tmp_path):
    build_bbbc021(tmp_path / "datasets", source)
    built = open_image_set("bbbc021", tmp_path / "datasets")
    arrays = _arrays()
    np.testing.assert_array_equal(built.images(range(4)), arrays["images"])
    assert built.channel_names == ("DAPI", "Tubulin", "Actin")
    assert built.pixel_size_um is None
    assert not built.simulated
    expected = pd.DataFrame(
        {
            "plate": arrays["plate"],
            "well": arrays["well"],
            "site": arrays["site"],
            "label": arrays["moa"],
            "source": [f"bbbc021_subset.npz[{i}]" for i in range(4)],
            "cell": arrays["cell"],
            "compound": ["DMSO", "taxol", "DMSO", "DMSO"],
            "dose": ["", "1 micromolar", "", ""],
        }
    )
    pd.testing.assert_frame_equal(built.metadata, expected)


@needs_real_data
def test_real_data(tmp_path):
    build_bbbc021(tmp_path, REAL)
    built = open_image_set("bbbc021", tmp_path)
    with np.load(REAL / "bbbc021_subset.npz") as arrays:
        images, moa = arrays["images"], arrays["moa"]
    rows = [0, 719, 1439]
    np.testing.assert_array_equal(built.images(rows), images[rows])
    assert built.image_shape == (68, 68, 3)
    assert built.metadata["label"].tolist() == moa.tolist()
    assert built.metadata.groupby(["plate", "label"]).size().tolist() == [240] * 6
    treated = built.metadata["label"] != "DMSO"
    assert (built.metadata["compound"] == "DMSO").equals(~treated)
    # What the README warns of: the well gives the class away.
    assert set(built.metadata.loc[~treated, "well"]) == {"B02"}
    assert set(built.metadata.loc[treated, "well"]) == {"B03", "B04", "B05"}
    pixels = images.reshape(-1, 3)
    np.testing.assert_allclose(built.statistics["overall"]["mean"], pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(
        built.statistics["overall"]["percentiles"]["99.9"], np.percentile(pixels, 99.9, axis=0), rtol=1e-12
    )


@pytest.mark.parametrize("name", ["bbbc021_subset.npz", "wells.csv"])
def test_missing_file(source, tmp_path, name):
    (source / name).unlink()
    _refused(source, tmp_path, rf"{name}: no such file; --source is a folder")


def test_source_that_is_not_there(tmp_path):
    _refused(tmp_path / "nowhere", tmp_path, "nowhere.*no such file")


@pytest.mark.parametrize("kept", [0, 10, 0.3, 0.9])
def test_truncated_images(source, tmp_path, kept):
    whole = (source / "bbbc021_subset.npz").read_bytes()
    size = kept if isinstance(kept, int) else int(kept * len(whole))
    (source / "bbbc021_subset.npz").write_bytes(whole[:size])
    _refused(source, tmp_path, r"bbbc021_subset.npz: not a whole .npz file")


def test_damaged_images(source, tmp_path):
    """A flipped bit in the middle: the length is right, the content is not."""
    whole = bytearray((source / "bbbc021_subset.npz").read_bytes())
    whole[200] ^= 0xFF
    (source / "bbbc021_subset.npz").write_bytes(whole)
    _refused(source, tmp_path, r"bbbc021_subset.npz: not a whole .npz file")


def _rewrite(source, **changes):
    arrays = {name: value for name, value in {**_arrays(), **changes}.items() if value is not None}
    np.savez_compressed(source / "bbbc021_subset.npz", allow_pickle=True, **arrays)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"moa": None, "site": None}, r"the arrays \['moa', 'site'\] are missing"),
        ({"images": _arrays()["images"].astype(np.float32)}, r"\(4, 6, 6, 3\) float32, expected \[N, H, W, C\] uint16"),
        ({"images": _arrays()["images"][..., :2]}, r"images are \(4, 6, 6, 2\)"),
        ({"cell": np.arange(3)}, "arrays of different lengths.*'cell': 3"),
        ({"well": np.array(["B02", "A0", "B02", "B02"])}, "well 'A0': expected a row A to P"),
        ({"well": np.array(["B02", "Q03", "B02", "B02"])}, "well 'Q03': expected"),
        ({"well": np.array(["B02", "C07", "B02", "B02"])}, "wells.csv has no line for plate P1, well C07"),
        ({"moa": np.array([{}, "a", "b", "c"], dtype=object)}, "not a whole .npz file .*pickle"),
    ],
    ids=["missing", "float", "channels", "lengths", "A0", "Q03", "no line", "pickle"],
)
def test_bad_arrays(source, tmp_path, changes, message):
    _rewrite(source, **changes)
    _refused(source, tmp_path, message)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (WELLS.replace("Dose", "Concentration"), r"wells.csv: the columns \['Dose'\] are missing"),
        (WELLS.replace("B03", "A0"), "well 'A0'"),
        (WELLS.replace("P2,", "P3,"), "wells.csv has no line for plate P2, well B02"),
        ("", "wells.csv: not a table"),
        (WELLS + "P1,B02,taxol,\n", "wells.csv: plate P1, well B02 has two lines"),
    ],
    ids=["column", "A0", "no line", "empty", "twice"],
)
def test_bad_table(source, tmp_path, table, message):
    (source / "wells.csv").write_text(table)
    _refused(source, tmp_path, message)


def test_a_second_try_after_bad_input(source, tmp_path):
    shutil.copy(source / "wells.csv", tmp_path / "kept.csv")
    (source / "wells.csv").write_text(WELLS.replace("P2,", "P3,"))
    _refused(source, tmp_path, "no line")
    shutil.copy(tmp_path / "kept.csv", source / "wells.csv")
    build_bbbc021(tmp_path / "datasets", source)
    assert len(open_image_set("bbbc021", tmp_path / "datasets")) == 4
