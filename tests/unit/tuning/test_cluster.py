import socket

import pytest

ray = pytest.importorskip("ray")

from bie_jax.config.schema import ConfigError
from bie_jax.tuning.cluster import check_room, started_ray
from bie_jax.tuning.sweep import Share
from tests.unit.tuning.sweeps import sweep

MACHINE = {"CPU": 8.0, "GPU": 1.0, "memory": 16 * 2.0**30}


@pytest.mark.parametrize(
    ("each", "message"),
    [
        (Share(9, 0, 0), "each.cores=9 of the sweep, and no machine of Ray's has more than 8$"),
        (Share(1, 2, 0), "each.gpus=2 of the sweep, and no machine of Ray's has more than 1$"),
        (Share(1, 0, 32), "each.memory_gb=32 of the sweep, and no machine of Ray's has more than 16$"),
    ],
)
def test_what_no_trial_can_have_is_refused(each, message):
    with pytest.raises(ConfigError, match=message):
        check_room(sweep(each=each), [MACHINE, MACHINE])  # two machines have it together, which helps no trial
    with pytest.raises(ConfigError, match=r"each.gpus=0.5 of the sweep, and no machine of Ray's has more than 0$"):
        check_room(sweep(each=Share(1, 0.5, 0)), [{"CPU": 8.0}])
    with pytest.raises(ConfigError, match=r"cores=9, gpus=1, memory_gb=0\) of the sweep, and no machine .* all of it"):
        check_room(sweep(each=Share(9, 1, 0)), [MACHINE, {"CPU": 64.0}])


@pytest.mark.parametrize(
    ("each", "machines", "room"),
    [
        (Share(2, 0.25, 4), [MACHINE], 4),
        (Share(2, 0.5, 4), [MACHINE], 2),
        (Share(5, 0, 0), [MACHINE, MACHINE], 2),  # 16 cores are three times 5, but not on one machine
        (Share(2, 0.5, 4), [MACHINE, {"CPU": 64.0}], 2),
    ],
)
def test_fewer_than_wanted_at_once_is_said(capsys, each, machines, room):
    check_room(sweep(at_once=4, each=each), machines)
    said = f"sweep: Ray has room for {room} trials at once, not for 4\n" if room < 4 else ""
    assert capsys.readouterr().out == said


@pytest.mark.parametrize(
    "address", ["nonsense", "http://127.0.0.1:8265", "ray://127.0.0.1:10001", "127.0.0.1:", "127.0.0.1:port"]
)
def test_what_is_no_address_is_refused(monkeypatch, address):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError) as refused, started_ray(sweep()):
        pass
    assert str(refused.value) == f"RAY_ADDRESS={address!r}: expected 'auto' or HOST:PORT of `ray start --head`"


def test_a_cluster_that_is_gone_is_said_at_once(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    said = rf"^RAY_ADDRESS=127\.0\.0\.1:{port}: no Ray answers there \(.*refused\); start it"
    with pytest.raises(ConfigError, match=said), started_ray(sweep()):
        pass


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.50.0\n    Python: 3.11.7\n"),
            "Version mismatch: The cluster was started with: Ray: 2.50.0 Python: 3.11.7 (here: Ray ",
        ),
        (ConnectionError("Failed to connect"), "Failed to connect (here: Ray "),
        (ray.exceptions.AuthenticationError("no token"), "no token"),
    ],
)
def test_a_cluster_of_another_kind_is_one_line(monkeypatch, error, said):
    def init(**told):
        raise error

    monkeypatch.setattr(ray, "init", init)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        monkeypatch.setenv("RAY_gcs_server_port_wait_time_s", "1")  # so that it is as before when the test ends
        with pytest.raises(ConfigError) as refused, started_ray(sweep()):
            pass
    assert str(refused.value).startswith(f"RAY_ADDRESS={address}: {said}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("address", ["", "local"])
def test_without_an_address_ray_is_of_this_machine_and_ends(monkeypatch, address):
    told, ended = [], []
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "init", lambda **given: told.append(given))
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append(True))
    alive, gone = {"Resources": MACHINE, "Alive": True}, {"Resources": {"CPU": 99.0}, "Alive": False}
    monkeypatch.setattr(ray, "nodes", lambda: [alive, gone])
    with started_ray(sweep(at_once=2, each=Share(3, 0, 0))):
        assert not ended
    assert (told[0]["address"], told[0]["num_cpus"], ended) == ("local", 6, [True])
    with pytest.raises(ConfigError, match="more than 8"), started_ray(sweep(each=Share(9, 0, 0))):
        pass
    assert len(ended) == 2
