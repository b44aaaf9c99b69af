import unicodedata

import pytest

from data.errors import BuildError
from data.text import alike_but_for_case, is_missing, plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (unicodedata.normalize("NFD", "Kontrollé"), "Kontroll\u00e9"),
        ("\ufeffDMSO\u200b", "DMSO"),
        ("\u00a0taxol\u202f1\u00a0\u00b5M ", "taxol 1 \u00b5M"),
        ("two\nlines\tand", "two lines and"),
        ("a\u00adb\u200e\u2060", "ab"),
        ("two  blanks", "two  blanks"),
        ("dmso", "dmso"),
        ("01", "01"),
    ],
)
def test_what_looks_the_same_is_the_same(text, expected):
    assert plain(text, "x") == expected
    assert plain(expected, "x") == expected


@pytest.mark.parametrize("text", ["a\0b", "a\x07", "\ud800"])
def test_what_is_no_text(text):
    with pytest.raises(BuildError, match=r"^table, line 3: .* has the control character U\+"):
        plain(text, "table, line 3")


def test_missing():
    assert all(map(is_missing, ["", "NA", "N/A", "nan", "NaN", "NULL", "None", "<NA>"]))
    assert not any(map(is_missing, ["none", "Na", "0", "NAA", "no gene", "Nan"]))


def test_letter_case():
    assert alike_but_for_case(["DMSO", "dmso", "x", "Dmso", "DMSO"]) == [["DMSO", "Dmso", "dmso"]]
