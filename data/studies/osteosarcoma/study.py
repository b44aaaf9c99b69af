"""The osteosarcoma cells among the known sets: contours, no pixels."""

from data.options import FieldOptions
from data.sources.download import bring
from data.sources.origin import Origin
from data.studies.osteosarcoma.index import LABEL, TEXT, VERSION, index_osteosarcoma
from data.studies.study import Study


def origin(options: FieldOptions) -> Origin:
    """The folder that the user gives, as `index_osteosarcoma`."""
    folder, notes = bring(options.needed_source(), options.sha256, options.downloads)
    return Origin(index_osteosarcoma(folder), {}, LABEL, TEXT, notes)


OSTEOSARCOMA = Study(
    name="osteosarcoma",
    version=VERSION,
    kinds=("shapes",),
    layout=None,
    flags=frozenset(("sha256",)),
    mask="binary",
    origin=origin,
)
