"""Trees of parameters as tables by path, and the checks that all families share."""

from typing import Any

from flax import traverse_util

LeafPath = tuple[str, ...]
Leaves = dict[LeafPath, Any]  # what a tree of parameters holds, by path


def flat(tree: dict[str, Any]) -> Leaves:
    """A tree as a table."""
    return dict(traverse_util.flatten_dict(tree))


def below(leaves: Leaves, prefix: LeafPath) -> Leaves:
    """The leaves whose paths begin with `prefix`, by the rest of their paths."""
    return {path[len(prefix) :]: leaf for path, leaf in leaves.items() if path[: len(prefix)] == prefix}


def with_values(leaves: Leaves, prefix: LeafPath, given: Leaves) -> Leaves:
    """`leaves` with `given` in place of everything below `prefix`, in the types that were there.

    Raises:
        ValueError: for a leaf that is missing, left over or of another shape.
    """
    known = below(leaves, prefix)
    shapes, given_shapes = ({path: tuple(leaf.shape) for path, leaf in tree.items()} for tree in (known, given))
    if shapes != given_shapes:
        path = min(path for path in shapes.keys() | given_shapes.keys() if shapes.get(path) != given_shapes.get(path))
        raise ValueError(
            f"{'/'.join((*prefix, *path))} is {shapes.get(path, 'not there')} in the network, and in these weights "
            f"{given_shapes.get(path, 'not there')}"
        )
    cast = {  # what was kept may be a mere shape
        path: leaf if given[path] is leaf else given[path].astype(leaf.dtype) for path, leaf in known.items()
    }
    return leaves | {(*prefix, *path): leaf for path, leaf in cast.items()}


def refuse_differences(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Raise ValueError with every key of a configuration where the network's value is not that of the weights."""
    different = [
        f"{key}={ours[key]!r}, and these weights need {theirs[key]!r}" for key in ours if ours[key] != theirs[key]
    ]
    if different:
        raise ValueError("; ".join(different))
