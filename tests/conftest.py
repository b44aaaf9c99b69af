"""Eight CPU devices, strict numerics, and one tiny built set for all tests."""

import os

# Before jax looks at the machine: the tests of data parallelism need several devices, and one process can have them.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import pytest
from absl import flags

jax.config.update("jax_numpy_rank_promotion", "raise")
