"""How many devices lie along each axis of the mesh, once it is known how many there are."""

import math

from bie_jax.config.schema import ConfigError, MeshConfig


def mesh_shape(mesh: MeshConfig, devices: int) -> tuple[int, int, int]:
    """Devices along "data", "fsdp" and "tensor".

    Args:
        mesh: the checked `train.mesh` group, in which at most one axis is -1.
        devices: of all processes.

    Raises:
        ConfigError: if the axes do not take all devices.
    """
    sizes = (mesh.data, mesh.fsdp, mesh.tensor)
    given = math.prod(size for size in sizes if size != -1)
    told = f"config.train.mesh: data={mesh.data}, fsdp={mesh.fsdp}, tensor={mesh.tensor}"
    if -1 not in sizes and given != devices:
        raise ConfigError(
            f"{told}: {given} devices, and there are {devices}; their product must be {devices}, and -1 for one of "
            "them takes what is left"
        )
    if devices % given:
        raise ConfigError(f"{told}: {devices} devices cannot be shared out; those given must divide {devices}")
    data, fsdp, tensor = (devices // given if size == -1 else size for size in sizes)
    return data, fsdp, tensor
