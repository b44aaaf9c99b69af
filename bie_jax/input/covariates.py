"""Numbers known of an object without a network, such as its size, that stand beside its embedding (`eval.append`)."""

from collections.abc import Sequence

import numpy as np

from bie_jax.config.schema import ConfigError
from bie_jax.input.image_set import ImageSet
from bie_jax.shapes.descriptors import SHAPE_PROPERTIES, SIZE_PROPERTIES, region_properties


def check_known(image_set: ImageSet, names: Sequence[str], key: str = "append") -> None:
    """Raise ConfigError, with what there is, unless all are numbers known of a set, of every example, in float32.

    `key`, of the `eval` group, has asked for them.
    """
    known = list(image_set.metadata.select_dtypes("number").columns)
    known += [name for name in SIZE_PROPERTIES if image_set.kind == "shapes" and name not in known]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"config.eval.{key}={tuple(names)}: {name!r} is no number known of {image_set.name!r}; there are "
                f"{', '.join(known)}"
            )
        if name in image_set.metadata:
            values = image_set.metadata[name].to_numpy()
            bad = ~np.isfinite(_single(values))
            if np.issubdtype(values.dtype, np.integer):
                bad |= _single(values).astype(np.float64) != values
            if bad.any():
                row = int(bad.argmax())
                raise ConfigError(
                    f"config.eval.{key}={tuple(names)}: {name!r} is {values[row]} in row {row} of {image_set.name!r}, "
                    f"and in {int(bad.sum())} rows no number that float32 holds; leave it out, or build the set again "
                    "with a number for every example"
                )


def _single(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # looked at above
        return values.astype(np.float32)


def known_numbers(image_set: ImageSet, names: Sequence[str], key: str = "append") -> np.ndarray:
    """Columns of numbers of a set, and of outlines their lengths and areas.

    Args:
        image_set: of N images or outlines.
        names: k columns of the set, or of `SIZE_PROPERTIES` (px and px^2).
        key: of the `eval` group, that asks for them.

    Returns:
        [N, k] float32, k may be 0.

    Raises:
        ConfigError: for a name that is neither.
    """
    check_known(image_set, names, key)
    numbers = image_set.metadata.select_dtypes("number")
    columns = {name: numbers[name] for name in names if name in numbers}
    measured = [name for name in names if name not in numbers]
    if measured:
        outlines = image_set.images(np.arange(len(image_set)))[..., 0]
        sizes = region_properties(outlines, size=True).values[:, len(SHAPE_PROPERTIES) :]
        columns |= {name: sizes[:, SIZE_PROPERTIES.index(name)] for name in measured}
    table = [np.asarray(columns[name], np.float32) for name in names]
    return np.stack(table, axis=1) if table else np.empty((len(image_set), 0), np.float32)
