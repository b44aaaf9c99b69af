import socket
import threading
import time

import pytest

from bie_jax.config.schema import ConfigError
from bie_jax.training.meeting import meet
from bie_jax.training.processes import join


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _meet_all(port, count, indices, seconds, delay=0.0):
    """What each of `indices` finds missing of `count`; they begin one after the other."""
    found = {}

    def one(index):
        found[index] = meet("127.0.0.1", port, count, index, seconds)

    threads = [threading.Thread(target=one, args=(index,)) for index in indices]
    for thread in threads:
        thread.start()
        time.sleep(delay)
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_processes_meet_in_any_order(port, order):
    assert _meet_all(port, 3, order, 20, delay=0.1) == {0: [], 1: [], 2: []}


def test_all_that_came_are_told_who_did_not(port):
    assert _meet_all(port, 4, (0, 2), 1.0) == {0: [1, 3], 2: [1, 3]}


def test_without_the_first_one_that_is_what_is_missing(port):
    assert meet("127.0.0.1", port, 2, 1, 0.5) == [0]


def test_who_is_no_process_of_the_run_is_not_counted(port):
    def knock():
        with socket.create_connection(("127.0.0.1", port)) as caller:
            caller.sendall(b"GE")

    found = {}
    first = threading.Thread(target=lambda: found.update({0: meet("127.0.0.1", port, 2, 0, 20)}))
    first.start()
    time.sleep(0.1)
    knock()
    assert meet("127.0.0.1", port, 2, 1, 20) == []
    first.join()
    assert found == {0: []}


@pytest.mark.parametrize(
    "how", ["", "node1", "node1:80", "node1:80,2", "node1:80,2,2", "node1:80000,2,1", "node1:80,2,-1"]
)
def test_what_does_not_say_who_meets_is_refused(how):
    with pytest.raises(ConfigError, match=r"expected 'none', 'auto' or HOST:PORT,COUNT,INDEX with INDEX from 0"):
        join(how)


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"process 0 cannot listen at 127.0.0.1:{port} \("):
            join(f"127.0.0.1:{port},2,0")
