"""The sets that `python -m data.build` knows by name, in the order in which they are listed: the one list of them."""

from data.studies.bbbc010.study import BBBC010
from data.studies.bbbc021.study import BBBC021
from data.studies.idr0006.study import IDR0006
from data.studies.idr0035.study import IDR0035
from data.studies.idr0036.study import IDR0036
from data.studies.idr0093.study import IDR0093
from data.studies.idr0094.study import IDR0094
from data.studies.mnist.study import MNIST
from data.studies.osteosarcoma.study import OSTEOSARCOMA
from data.studies.simulated.study import SIMULATED
from data.studies.study import Simulation, Study

_KNOWN: tuple[Study | Simulation, ...] = (
    SIMULATED,
    BBBC010,
    BBBC021,
    MNIST,
    IDR0006.study,
    IDR0035.study,
    IDR0036.study,
    IDR0093.study,
    IDR0094.study,
    OSTEOSARCOMA,
)
STUDIES: dict[str, Study | Simulation] = {study.name: study for study in _KNOWN}
