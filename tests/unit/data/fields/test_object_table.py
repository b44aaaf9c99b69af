import pytest

from data.errors import BuildError
from data.fields.index import Field, Index
from data.fields.object_table import attach_objects

FIELDS = (Field("P", "", 1, {}), Field("P", "B02", 1, {}), Field("P", "B02", 2, {}), Field("Q", "B02", 1, {}))
INDEX = Index(("DNA",), FIELDS, {}, None, ())


def _attach(folder, text, wells_per_plate=96):
    path = folder / "objects.csv"
    path.write_text(text)
    return attach_objects(INDEX, path, wells_per_plate)


def test_every_field_gets_its_own_objects_in_the_tables_order(tmp_path):
    index, types = _attach(
        tmp_path,
        "Metadata_Plate,Metadata_Well,Site,Y,X,Area,Kind\n"
        "Q,B02,1,5,6.5,70,round\n"
        "P,b2,2.0,1,2,80,long\n"
        "\n"
        "P,,1,3,4,90,round\n"
        "Q,B02,1,0.25,9,100,long\n",
    )
    assert [field.objects for field in index.fields] == [
        ((3.0, 4.0, {"object_area": 90, "object_kind": "round"}),),
        (),
        ((1.0, 2.0, {"object_area": 80, "object_kind": "long"}),),
        (
            (5.0, 6.5, {"object_area": 70, "object_kind": "round"}),
            (0.25, 9.0, {"object_area": 100, "object_kind": "long"}),
        ),
    ]
    assert types == {"object_area": int, "object_kind": str}
    assert [(field.plate, field.well, field.site) for field in index.fields] == [
        (field.plate, field.well, field.site) for field in FIELDS
    ]
    assert index.channels == INDEX.channels


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plate,well,y\nP,B02,1\n", r"the columns \['site', 'x'\] are missing; there are plate, well, y"),
        ("P,B02,1,1,1\nP,B03,1,1,1", "line 3: there is no image of plate P, well B03, site 1"),
        ("P,B02,3,1,1", "line 2: there is no image of plate P, well B02, site 3"),
        ("\nP,B02,one,1,1", "line 3: site is 'one', expected a whole number from 0"),
        ("P,B02,1,1,far", "line 2: y '1', x 'far': expected numbers of pixels"),
        ("P,B02,1,,1", "line 2: y '', x '1': expected numbers of pixels"),
        ("P,P24,1,1,1", "line 2.*P24.*96"),  # a well of 384
    ],
)
def test_what_is_missing_or_of_no_field_is_refused(tmp_path, text, message):
    header = "" if text.startswith("plate") else "plate,well,site,y,x\n"
    with pytest.raises(BuildError, match=message) as caught:
        _attach(tmp_path, header + text)
    assert "objects.csv" in str(caught.value)
