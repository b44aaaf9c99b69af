import pytest

pytest.importorskip("ray")

from bie_jax.config.schema import ConfigError
from bie_jax.tuning.run import _check_room
from bie_jax.tuning.sweep import Share
from tests.unit.tuning.sweeps import sweep

THERE = {"CPU": 8.0, "GPU": 1.0, "memory": 16 * 2.0**30}


@pytest.mark.parametrize(
    ("each", "message"),
    [
        (Share(9, 0, 0), "each.cores=9 of the sweep, and Ray has 8"),
        (Share(1, 2, 0), "each.gpus=2 of the sweep, and Ray has 1"),
        (Share(1, 0, 32), "each.memory_gb=32 of the sweep, and Ray has 16"),
    ],
)
def test_what_no_trial_can_have_is_refused(each, message):
    with pytest.raises(ConfigError, match=message):
        _check_room(sweep(each=each), THERE)
    with pytest.raises(ConfigError, match=r"each.gpus=0.5 of the sweep, and Ray has 0$"):
        _check_room(sweep(each=Share(1, 0.5, 0)), {"CPU": 8.0})


def test_fewer_than_wanted_at_once_is_said(capsys):
    _check_room(sweep(at_once=4, each=Share(2, 0.25, 4)), THERE)
    assert capsys.readouterr().out == ""
    _check_room(sweep(at_once=4, each=Share(2, 0.5, 4)), THERE)
    assert "Ray has room for 2 trials at once, not for 4" in capsys.readouterr().out
