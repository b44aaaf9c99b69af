"""The studies that `python -m data.build` knows by name."""

from data.studies.idr0006.study import IDR0006
from data.studies.idr0035.study import IDR0035
from data.studies.idr0036.study import IDR0036
from data.studies.idr0093.study import IDR0093
from data.studies.idr0094.study import IDR0094
from data.studies.study import Study

STUDIES: dict[str, Study] = {
    "idr0006": IDR0006,
    "idr0035": IDR0035,
    "idr0036": IDR0036,
    "idr0093": IDR0093,
    "idr0094": IDR0094,
}
