"""One mesh over every device there is: the batch is split along it, everything else is a copy on each.

Under `jax.jit` with these shardings, sums and means over a batch are global: batch statistics, code counts and losses
need no collective written by hand.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding


def data_mesh() -> Mesh:
    """All devices of all processes on one axis, "data"."""
    # Auto, by name: jax's default makes shardings part of the types, and then pairwise operations over a split batch
    # do not trace.
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def split_batch(mesh: Mesh) -> NamedSharding:
    """Axis 0 over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def abstract(tree: Any, sharding: Sharding) -> Any:
    """Shapes and dtypes of a tree of arrays, or of their shapes, with the sharding that they are wanted in."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)


def put_batch(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, Any]:
    """This process's share of a batch -> global arrays, in their own dtype."""
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}
