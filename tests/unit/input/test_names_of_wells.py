"""Which images belong to one well."""

import pandas as pd

from bie_jax.input.wells import names_of_wells


def _wells(*rows):
    return names_of_wells(pd.DataFrame(rows, columns=["plate", "well", "site", "source"])).tolist()


def test_sites_of_a_well_are_of_one_and_wells_of_two_plates_are_two():
    a, b, c, d = _wells(("P1", "B02", 1, "x"), ("P1", "B02", 2, "y"), ("P2", "B02", 1, "z"), ("P1", "B03", 1, "u"))
    assert a == b
    assert len({a, c, d}) == 3


def test_without_wells_crops_of_one_field_belong_together_and_fields_do_not():
    a, b, c, d, e = _wells(
        ("", "", 1, "x.tif"), ("", "", 1, "x.tif"), ("", "", 1, "y.tif"), ("", "", 2, "x.tif"), ("P1", "", 1, "x.tif")
    )
    assert a == b
    assert len({a, c, d, e}) == 4
