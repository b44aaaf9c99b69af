import pytest

from data.errors import BuildError
from data.wells import PLATE_FORMATS, row_letters, well_name


@pytest.mark.parametrize("wells", PLATE_FORMATS)
def test_every_well_of_every_format_comes_back(wells):
    rows, columns = PLATE_FORMATS[wells]
    assert rows * columns == wells
    names = {f"{row_letters(row)}{column:02d}" for row in range(rows) for column in range(1, columns + 1)}
    assert len(names) == wells
    for name in names:
        letters, column = name[:-2], int(name[-2:])
        for written in (name, name.lower(), f"{letters}{column}", f" {letters}00{column} "):
            assert well_name(written, "a table", wells) == name


def test_rows_after_z():
    assert [row_letters(row) for row in (0, 25, 26, 31)] == ["A", "Z", "AA", "AF"]


@pytest.mark.parametrize(
    ("name", "wells"),
    [
        *((name, 384) for name in ("A0", "A00", "Q25", "Q01", "P25", "AA01")),
        *((name, 1536) for name in ("AG01", "AF49")),
        *((name, 96) for name in ("I01", "A13", "", "12", "B", "B2C", "B-2", "Ａ1", "B²")),
        *((name, 6) for name in ("C1", "A4")),
    ],
)
def test_a_well_that_there_cannot_be(name, wells):
    with pytest.raises(BuildError, match=f"plates.csv, line 3: well .*a plate of {wells} wells"):
        well_name(name, "plates.csv, line 3", wells)
