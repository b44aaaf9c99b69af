"""Where every array of a run lies: from shapes, a mesh and rules to a tree of shardings.

Under `jax.jit` with these shardings, sums and means over a batch are global: batch statistics, code counts and losses
need no collective written by hand.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

# (path of the leaf, its shape and dtype, mesh) -> how its axes lie on the mesh; None: the next rule decides.
Rule = Callable[[str, jax.ShapeDtypeStruct, Mesh], PartitionSpec | None]


def replicate(path: str, leaf: jax.ShapeDtypeStruct, mesh: Mesh) -> PartitionSpec:
    """A whole copy on every device."""
    del path, leaf, mesh
    return PartitionSpec()


RULES: tuple[Rule, ...] = (replicate,)


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh, and what lies where on it.

    Attributes:
        mesh: with an axis "data", over which a batch is split.
        rules: for the state, the first that answers decides; the last one must answer for every leaf.
    """

    mesh: Mesh
    rules: tuple[Rule, ...] = RULES

    @property
    def batch(self) -> NamedSharding:
        """Axis 0 over the devices."""
        return NamedSharding(self.mesh, PartitionSpec("data"))

    @property
    def host(self) -> NamedSharding:
        """Of what a host reads (metrics, pictures): every process has the whole of it."""
        return NamedSharding(self.mesh, PartitionSpec())

    def of(self, shapes: Any) -> Any:
        """A tree of shapes (or of arrays) -> the same tree of shardings.

        Raises:
            ValueError: for a leaf that no rule has an answer for.
        """
        return jax.tree.map_with_path(self._sharding_of, shapes)

    def abstract(self, shapes: Any) -> Any:
        """The same tree of shapes and dtypes with their shardings in them, as loading and compiling ask for it."""
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            shapes,
            self.of(shapes),
        )

    def _sharding_of(self, path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for rule in self.rules:
            spec = rule(name, leaf, self.mesh)
            if spec is not None:
                return NamedSharding(self.mesh, spec)
        raise ValueError(f"no sharding rule has an answer for {name} of shape {leaf.shape}")


def data_layout(devices: Sequence[Any] | None = None) -> Layout:
    """Devices on one axis, "data", the state whole on each.

    Args:
        devices: which; None: all of all processes.
    """
    devices = jax.devices() if devices is None else devices
    # Auto, by name: jax's default makes shardings part of the types, and then pairwise operations over a split batch
    # do not trace.
    return Layout(jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices))


def put_batch(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, Any]:
    """This process's share of a batch -> global arrays, in their own dtype."""
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def on_first_device(shapes: Any) -> Any:
    """The same tree of shapes and dtypes, wanted whole on this process's first device: to be read by the host."""
    here = SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), shapes)
