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
    [("A0", 384), ("A00", 384), ("Q25", 384), ("Q01", 384), ("P25", 384), ("AA01", 384), ("AG01", 1536), ("AF49", 1536)]
    + [("C1", 6), ("A4", 6), ("I01", 96), ("A13", 96), ("", 96), ("12", 96), ("B", 96), ("B2C", 96), ("B-2", 96)]
    + [("Ａ1", 96), ("B²", 96)],
)
def test_a_well_that_there_cannot_be(name, wells):
    with pytest.raises(BuildError, match=f"plates.csv, line 3: well .*a plate of {wells} wells"):
        well_name(name, "plates.csv, line 3", wells)
