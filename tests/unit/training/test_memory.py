from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from bie_jax.training import memory
from bie_jax.training.memory import OutOfMemoryError, available_bytes, check_fits, step_bytes

GIB = 2**30


def _needs(count):
    """A compiled step that says it needs so many bytes."""
    zeros = dict.fromkeys(("argument", "output", "alias", "generated_code"), 0)
    sizes = {f"{name}_size_in_bytes": value for name, value in (zeros | {"temp": count}).items()}
    return SimpleNamespace(memory_analysis=lambda: SimpleNamespace(**sizes))


class _Compiler:
    """`compile_at` that remembers what it was asked."""

    def __init__(self, bytes_of):
        self.bytes_of, self.asked = bytes_of, []

    def __call__(self, batch_size):
        self.asked.append(batch_size)
        return _needs(self.bytes_of(batch_size))


def _compile(batch_size):
    """[B, 1000] -> the same shape, through one temporary that a matrix product must write out."""
    x, w = jax.ShapeDtypeStruct((batch_size, 1000), jnp.float32), jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
    return jax.jit(lambda x, w: (x @ w) @ w).lower(x, w).compile()


def test_what_a_step_occupies_is_the_sum_of_its_parts():
    names = ("argument", "output", "temp", "generated_code", "alias")
    sizes = SimpleNamespace(**{f"{name}_size_in_bytes": 10**i for i, name in enumerate(names)})
    assert step_bytes(SimpleNamespace(memory_analysis=lambda: sizes)) == 1111 - 10_000


def test_arguments_results_and_temporaries_count():
    x = 300 * 1000 * 4
    assert step_bytes(_compile(300)) == pytest.approx(x + 4_000_000 + x + x, rel=1e-3)


def test_donated_arguments_count_once():
    state, batch = (jax.ShapeDtypeStruct((1000, size), jnp.float32) for size in (1000, 10))

    def step(state, batch):
        return state + batch.sum()

    kept = jax.jit(step).lower(state, batch).compile()
    reused = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
    assert step_bytes(kept) - step_bytes(reused) == pytest.approx(4_000_000, rel=1e-3)


@pytest.mark.eight_devices
def test_bytes_are_those_of_one_device():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = NamedSharding(mesh, PartitionSpec("data"))
    x = jax.ShapeDtypeStruct((800, 1000), jnp.float32)
    compiled = jax.jit(lambda x: x * 2, in_shardings=split, out_shardings=split).lower(x).compile()
    assert step_bytes(compiled) == pytest.approx(2 * 100 * 1000 * 4, rel=1e-3)


def test_a_step_that_fits_is_returned_compiled_once():
    compiler = _Compiler(lambda batch_size: 10 * batch_size)
    compiled = check_fits(compiler, 64, shares=8, parts=1, available=640)
    assert step_bytes(compiled) == 640
    assert compiler.asked == [64]


@pytest.mark.parametrize(("devices", "parts"), [(1, 1), (8, 1), (1, 8), (2, 4)])
def test_the_largest_batch_that_fits_is_found_on_a_line(devices, parts):
    compiler = _Compiler(lambda batch_size: 100 * GIB + 3 * GIB * batch_size)
    with pytest.raises(OutOfMemoryError) as refused:
        check_fits(compiler, 64, shares=devices, parts=parts, available=203 * GIB)
    expected = 34 if devices * parts == 1 else 32  # 100 + 3 * 34 = 202
    assert refused.value.largest_batch_size == expected
    assert str(refused.value) == (
        f"batch_size=64, shared by {devices} device(s), needs 292.00 GiB on each, and 203.00 GiB are there; "
        f"the largest seen to fit: {expected}"
    )
    assert len(compiler.asked) == 3


@pytest.mark.parametrize(
    ("bytes_of", "asked"),
    [
        (lambda b: 100 + int(10 * b**1.1), [1000, 1, 20]),  # a line lies above a convex curve: what it says fits
        (lambda b: 100 + int(40 * b**0.95), [1000, 1, 13, 11]),  # and below a concave one: a second line from there
        (lambda b: 100 + int(40 * b**0.9), [1000, 1, 18, 13]),  # which may still be too much, but four are enough
        (lambda b: 100 + b**2, [1000, 1]),  # the line says that nothing larger fits
        (lambda b: 100 if b < 2 else 10_000 + b, [1000, 1, 37, 2]),  # a jump: only the smallest was seen to fit
        (lambda b: 10_000 - b, [1000, 1]),
    ],
)
def test_what_is_named_fits_whatever_the_curve(bytes_of, asked):
    compiler = _Compiler(bytes_of)
    with pytest.raises(OutOfMemoryError) as refused:
        check_fits(compiler, 1000, shares=1, parts=1, available=500)
    assert compiler.asked == asked
    assert refused.value.largest_batch_size == max((b for b in asked if bytes_of(b) <= 500), default=0)


def test_nothing_fits():
    compiler = _Compiler(lambda batch_size: 1000 + batch_size)
    with pytest.raises(OutOfMemoryError, match="not even a batch of 8 fits") as refused:
        check_fits(compiler, 8, shares=8, parts=1, available=500)
    assert (refused.value.largest_batch_size, compiler.asked) == (0, [8])
    with pytest.raises(OutOfMemoryError, match="not even a batch of 8 fits"):
        check_fits(compiler, 64, shares=8, parts=1, available=500)


def test_a_batch_larger_than_this_machine_is_refused_before_it_runs():
    (device, *_) = jax.devices()
    available = available_bytes(device)
    batch_size = available // 4000 // 8 * 8  # its images alone fill the memory
    with pytest.raises(OutOfMemoryError, match="GiB are there; the largest seen to fit") as refused:
        check_fits(_compile, batch_size, shares=8, parts=1, available=available)
    largest = refused.value.largest_batch_size
    assert largest % 8 == 0
    # Argument, result and temporary of equal size: a third of the memory each.
    assert largest == pytest.approx(batch_size / 3, rel=0.01)


@pytest.mark.eight_devices
def test_available_bytes_of_a_cpu_are_shared_by_the_devices_it_plays(monkeypatch):
    monkeypatch.setattr(memory, "_machine_bytes", lambda: 8000)
    monkeypatch.setattr(memory, "_cgroup_bytes", lambda: iter([16_000]))
    assert [available_bytes(device) for device in jax.devices()] == [1000] * 8
    monkeypatch.setattr(memory, "_cgroup_bytes", lambda: iter([16_000, 4000]))
    assert available_bytes(jax.devices()[0]) == 500
    monkeypatch.setattr(memory, "_cgroup_bytes", lambda: iter([]))
    assert available_bytes(jax.devices()[0]) == 1000


def test_available_bytes_of_an_accelerator_are_its_pool():
    device = SimpleNamespace(memory_stats=lambda: {"bytes_limit": 80 * GIB, "bytes_in_use": 3 * GIB})
    assert available_bytes(device) == 80 * GIB


def test_bytes_of_this_machine_are_those_the_system_counts():
    np.testing.assert_array_less(0, memory._machine_bytes())
    np.testing.assert_array_less(memory._machine_bytes(), 2**50)


def _write_group(folder, names, limit, used, dropped):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {dropped}\nfile 7\n")


V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


def test_control_groups_of_version_2(tmp_path):
    membership = tmp_path / "cgroup"
    membership.write_text("0::/job/step\n")
    root = tmp_path / "fs"
    _write_group(root / "job" / "step", V2, 5000, 10, 0)
    _write_group(root / "job", V2, 1000, 300, 50)
    _write_group(root, V2, "max", 300, 50)
    assert list(memory._cgroup_bytes(membership, root)) == [4990, 750]


def test_control_groups_of_version_1_seen_from_a_container(tmp_path):
    membership = tmp_path / "cgroup"
    membership.write_text("5:cpu,cpuacct:/x\n4:blkio,memory:/host/container\n0::/\n")
    root = tmp_path / "fs"
    _write_group(root / "memory", V1, 2000, 500, 100)
    assert list(memory._cgroup_bytes(membership, root)) == [1600]


def test_no_control_groups(tmp_path):
    assert list(memory._cgroup_bytes(tmp_path / "absent", tmp_path)) == []
