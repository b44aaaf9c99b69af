"""Which images belong to one well."""

import pandas as pd

_BETWEEN = "\x1f"  # in no name


def names_of_wells(metadata: pd.DataFrame) -> pd.Series:
    """The well of each image, plate and well together; of an image without one the field that it was cut from.

    Sets that name the same plates mean the same wells by them.

    Args:
        metadata: with `plate`, `well` ("" where none is known), `site` and `source`.

    Returns:
        [N] str, equal for images of one well.
    """
    text = {name: metadata[name].astype(str) for name in ("plate", "well", "site", "source")}
    well = text["plate"] + _BETWEEN + text["well"]
    field = _BETWEEN + text["plate"] + _BETWEEN + text["site"] + _BETWEEN + text["source"]
    return well.where(text["well"] != "", field)
