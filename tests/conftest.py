"""Strict numerics, and one tiny built set for all tests."""

import dataclasses
import multiprocessing
import os
import tempfile
import types
from importlib.metadata import version
from pathlib import Path

# Before jax looks at the machine. Compiling for eight devices takes three times as long as for one, so `make test` has
# a second process for the tests of data parallelism, which are marked `eight_devices`.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the suite's time is the compiler's. Without optimization, and with the older of its two ways to write loops
# (jax 0.12 has only the newer), it takes a third of the time, and networks as small as those of the tests run hardly
# slower.
_OLDER_LOOPS = " --xla_cpu_use_fusion_emitters=false" if version("jax").startswith("0.10.") else ""
os.environ.setdefault("XLA_FLAGS", f"--xla_backend_optimization_level=0{_OLDER_LOOPS}")

import jax
import numpy as np
import pytest
from absl import flags

from bie_jax.input.image_set import ImageSet, open_image_set
from bie_jax.train import train_and_evaluate
from configs import vqvae_idr0093
from data.records import workers
from data.records.writer import Description, write_set
from data.studies.simulated.build import build_simulated
from data.studies.simulated.simulation import Design
from tests.once import made_once

jax.config.update("jax_numpy_rank_promotion", "raise")
# The same small networks are compiled by many tests, in many processes. An entry that another process has half written,
# or was killed while writing, cannot be read and is compiled again; the warning of that is let pass in pyproject.toml.
jax.config.update("jax_compilation_cache_dir", str(Path(tempfile.gettempdir()) / f"bie-jax-tests-{os.getuid()}"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

# Grain looks at absl's flags; outside of app.run somebody must say that there are none.
flags.FLAGS.mark_as_parsed()


# Readers that may die are processes of their own, which are started afresh and then import all of data/, two seconds
# each. Here they are forked from a process that has imported it and done nothing else; those of the commands that tests
# start (test_build.py, test_build_stopped.py, test_records.py) begin as they do for everybody.
multiprocessing.set_forkserver_preload(["data.build"])
workers.multiprocessing = types.SimpleNamespace(
    get_context=lambda how: multiprocessing.get_context({"spawn": "forkserver"}[how]),
    parent_process=multiprocessing.parent_process,
)


def pytest_collection_modifyitems(items):
    """What waits for a process with eight devices says so where it is asked for in another one."""
    if jax.device_count() < 8:
        reason = "needs eight devices: JAX_NUM_CPU_DEVICES=8 python -m pytest -m eight_devices"
        for item in items:
            if item.get_closest_marker("eight_devices"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def torch():
    """PyTorch, which ours is held against; requirements-dev.txt installs it on Python 3.11 alone."""
    return pytest.importorskip("torch", reason="PyTorch is installed on Python 3.11 alone")


@pytest.fixture(scope="session")
def datasets(tmp_path_factory) -> str:
    """A data directory with one tiny simulated set, built once by the real builder."""
    design = Design(plates=2, control_wells=4, wells_per_sirna=1, sites=2, image_size=32, strengths=(0.5, 1.0))
    return str(made_once(tmp_path_factory, "datasets", lambda folder: str(build_simulated(folder, design, 1)))[0])


@dataclasses.dataclass(frozen=True)
class _OneImage:
    """Numbers up to 255, 4000 or, below zero and between whole numbers too, about a million."""

    shape: tuple[int, int, int] = (36, 40, 2)
    dtype: str = "uint16"

    def identity(self, part):
        return repr(part)

    def examples(self, part):
        rng = np.random.default_rng(part)
        whole = rng.integers(0, 256 if self.dtype == "uint8" else 4000, self.shape)
        image = whole if self.dtype != "float32" else rng.normal(scale=1e6, size=self.shape)
        yield (
            image.astype(self.dtype),
            {
                "plate": f"Q{part % 2}",
                "well": f"B{part // 2 + 2:02d}",
                "site": 1,
                "label": "x",
                "source": f"other {part}",
            },
        )


def _write_numbers(folder, name, channel_names, maker):
    description = Description(
        name=name,
        version="1.0.0",
        kind="images",
        channel_names=channel_names,
        pixel_size_um=None,
        image_shape=maker.shape,
        dtype=maker.dtype,
        columns={"plate": str, "well": str, "site": int, "label": str, "source": str},
        text="numbers",
        simulated=True,
    )
    write_set(description, range(24), maker, folder)


@pytest.fixture(scope="session")
def two_sets(datasets, tmp_path_factory):
    """The tiny simulated set (5 channels, 32 x 32) and another one: 2 channels, one of them shared, 36 x 40."""

    def make(folder):
        (folder / "simulated").symlink_to(Path(datasets) / "simulated")
        _write_numbers(folder, "other", ("actin", "DNA"), _OneImage())

    return str(made_once(tmp_path_factory, "two_sets", make)[0])


@pytest.fixture(scope="session")
def three_depths(datasets, tmp_path_factory):
    """The tiny simulated set (uint16), "bytes" (uint8, 3 channels) and "floats" (float32, 1 channel); other sizes."""

    def make(folder):
        (folder / "simulated").symlink_to(Path(datasets) / "simulated")
        _write_numbers(folder, "bytes", ("phase", "DNA", "actin"), _OneImage((40, 34, 3), "uint8"))
        _write_numbers(folder, "floats", ("actin",), _OneImage((33, 50, 1), "float32"))

    return str(made_once(tmp_path_factory, "three_depths", make)[0])


@pytest.fixture(scope="session")
def tiny_set(datasets) -> ImageSet:
    """The tiny set, opened."""
    return open_image_set("simulated", datasets)


@pytest.fixture
def tiny_config(datasets):
    """`configs/vqvae_idr0093.py:tiny` on the tiny set; a test may change it."""
    config = vqvae_idr0093.get_config("tiny")
    config.data.data_dir = datasets
    return config


@pytest.fixture(scope="session")
def trained_workdir(datasets, tmp_path_factory):
    """(workdir, result) of one tiny run, for all processes; who trains in it takes a copy."""
    config = vqvae_idr0093.get_config("tiny")
    config.data.data_dir = datasets
    folder, result = made_once(tmp_path_factory, "trained", lambda folder: train_and_evaluate(config, folder / "tiny"))
    return folder / "tiny", result
