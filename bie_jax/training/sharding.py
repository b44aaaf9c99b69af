"""Where every array of a run lies: from shapes, a mesh and rules to a tree of shardings.

Under `jax.jit` with these shardings, sums and means over a batch are global: batch statistics, code counts and losses
need no collective written by hand.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from bie_jax.config.mesh import mesh_shape
from bie_jax.config.schema import ConfigError, MeshConfig
from bie_jax.models.layers.stacks import STACKS

AXES = ("data", "fsdp", "tensor")
# A batch is shared by both: devices along "fsdp" hold other parts of the state, and see other examples.
_OVER_EXAMPLES = ("data", "fsdp")
# Smaller arrays are whole everywhere, of blocks in a scan what one of them has: fetching a part takes longer than it
# saves.
_LEAST_SPLIT = 2**12  # numbers
# The axis over "tensor" of what a transformer block's dense layers hold, counted from the last. They come in pairs: the
# first is split by what comes out (heads, hidden units), the second by what goes in, and only its sum crosses devices
# (Shoeybi et al. 2019, "Megatron-LM", arXiv 1909.08053, section 3).
_OVER_TENSOR = {
    ("qkv", "kernel"): -2,
    ("qkv", "bias"): -2,
    ("attention_out", "kernel"): -2,
    ("mlp_in", "kernel"): -1,
    ("mlp_in", "bias"): -1,
    ("mlp_out", "kernel"): -2,
}
# (path of the leaf, its shape and dtype, mesh) -> how its axes lie on the mesh; None: the next rule decides.
Rule = Callable[[str, jax.ShapeDtypeStruct, Mesh], PartitionSpec | None]


def replicate(path: str, leaf: jax.ShapeDtypeStruct, mesh: Mesh) -> PartitionSpec:
    """A whole copy on every device."""
    del path, leaf, mesh
    return PartitionSpec()


def split(path: str, leaf: jax.ShapeDtypeStruct, mesh: Mesh) -> PartitionSpec | None:
    """Products of transformer blocks over "tensor", and the largest other axis of a large array over "fsdp".

    The axis of blocks that a scan runs over stays whole: each device needs every block in turn.
    """
    names = path.split("/")
    axes: list[str | None] = [None] * len(leaf.shape)
    is_stacked = not STACKS.isdisjoint(names)
    shared = _OVER_TENSOR.get((names[-2], names[-1])) if is_stacked and len(names) > 1 else None
    if shared is not None and mesh.shape["tensor"] > 1 and leaf.shape[shared] % mesh.shape["tensor"] == 0:
        axes[shared] = "tensor"
    free = [
        axis
        for axis in range(1 if is_stacked else 0, len(axes))
        if axes[axis] is None and leaf.shape[axis] % mesh.shape["fsdp"] == 0
    ]
    fetched = leaf.size // leaf.shape[0] if is_stacked else leaf.size
    if free and mesh.shape["fsdp"] > 1 and fetched >= _LEAST_SPLIT:
        # Of equal ones the last: what goes into the attention's last product are heads, which devices need not divide.
        axes[max(free, key=lambda axis: (leaf.shape[axis], axis))] = "fsdp"
    return PartitionSpec(*axes) if any(axes) else None


RULES: tuple[Rule, ...] = (split, replicate)


@dataclasses.dataclass(frozen=True)
class Layout:
    """A mesh, and what lies where on it.

    Attributes:
        mesh: with the axes of `AXES`.
        rules: for the state, the first that answers decides; the last one must answer for every leaf.
    """

    mesh: Mesh
    rules: tuple[Rule, ...] = RULES

    @property
    def batch(self) -> NamedSharding:
        """Axis 0 over the devices that share a batch."""
        return NamedSharding(self.mesh, PartitionSpec(_OVER_EXAMPLES))

    @property
    def shares(self) -> int:
        """Parts of a batch."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    def share(self, batch_size: int) -> np.ndarray:
        """Places in a batch that this process's devices hold, ascending: what it reads, and `put_batch` is given."""
        places = np.arange(batch_size)
        held = self.batch.addressable_devices_indices_map((batch_size,))
        return np.unique(np.concatenate([places[index] for index in held.values()]))

    def with_state_in_parts(self) -> "Layout":
        """The same devices, those along "data" moved to "fsdp"."""
        data, fsdp, tensor = (self.mesh.shape[axis] for axis in AXES)
        return dataclasses.replace(self, mesh=_mesh((1, data * fsdp, tensor), self.mesh.devices.flatten().tolist()))

    def with_examples_apart(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function of networks, in which whatever a module makes stays split by examples.

        Left alone, the compiler may as well keep the parts of a kernel where they are and send every example to all of
        them.
        """
        if self.mesh.shape["fsdp"] == self.mesh.shape["tensor"] == 1:
            return function

        @functools.wraps(function)
        def constrained(*args: Any, **kwargs: Any) -> Any:
            with nn.intercept_methods(self._keep_examples_apart):
                return function(*args, **kwargs)

        return constrained

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

    def _keep_examples_apart(
        self, method: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: nn.module.InterceptorContext
    ) -> Any:
        out = method(*args, **kwargs)
        return jax.tree.map(self._split_by_example, out) if context.method_name == "__call__" else out

    def _split_by_example(self, leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or leaf.ndim < 2 or leaf.shape[0] % self.shares:
            return leaf
        spec = PartitionSpec(_OVER_EXAMPLES, *[PartitionSpec.UNCONSTRAINED] * (leaf.ndim - 1))
        return jax.lax.with_sharding_constraint(leaf, NamedSharding(self.mesh, spec))

    def _sharding_of(self, path: Any, leaf: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        for rule in self.rules:
            spec = rule(name, leaf, self.mesh)
            if spec is not None:
                return NamedSharding(self.mesh, spec)
        raise ValueError(f"no sharding rule has an answer for {name} of shape {leaf.shape}")


def training_layout(mesh: MeshConfig) -> Layout:
    """All devices of all processes, as `train.mesh` says.

    Raises:
        ConfigError: if it does not take them all.
    """
    return Layout(_mesh(mesh_shape(mesh, jax.device_count()), jax.devices()))


def embedding_layout(mesh: MeshConfig) -> Layout:
    """The mesh of training where it takes the devices there are; on others the whole network on each of them.

    Rows of images are the same under every layout, to rounding: a run may be embedded on another machine.
    """
    try:
        return training_layout(mesh)
    except ConfigError:
        return data_layout()


def data_layout(devices: Sequence[Any] | None = None) -> Layout:
    """Devices along "data" alone, the state whole on each.

    Args:
        devices: which; None: all of all processes.
    """
    devices = jax.devices() if devices is None else devices
    return Layout(_mesh((len(devices), 1, 1), devices))


def _mesh(shape: tuple[int, int, int], devices: Sequence[Any]) -> Mesh:
    # Auto, by name: jax's default makes shardings part of the types, and then pairwise operations over a split batch
    # do not trace.
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


def put_batch(batch: dict[str, np.ndarray], sharding: NamedSharding) -> dict[str, Any]:
    """This process's share of a batch (`Layout.share`) -> global arrays, in their own dtype."""
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def on_first_device(shapes: Any) -> Any:
    """The same tree of shapes and dtypes, wanted whole on this process's first device: to be read by the host."""
    here = SingleDeviceSharding(jax.local_devices()[0])
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), shapes)
