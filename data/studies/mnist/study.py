"""The digits among the known sets."""

from pathlib import Path

from data.options import FieldOptions
from data.sources.origin import Origin, same_names
from data.studies.mnist.index import LABEL, TEXT, VERSION, fetch_mnist, index_mnist
from data.studies.study import FLAGS_OF_PIXELS, Study


def origin(options: FieldOptions) -> Origin:
    """The files that the user gives; else they are fetched."""
    index = index_mnist(fetch_mnist(options.downloads) if options.source is None else Path(options.source))
    return Origin(index, same_names(index), LABEL, TEXT, {})


MNIST = Study(
    name="mnist",
    version=VERSION,
    kinds=("images", "shapes"),
    layout=None,
    flags=FLAGS_OF_PIXELS,
    mask="grey",
    origin=origin,
)
