"""Checkpoints by Orbax: saved asynchronously, atomic, and restored only into the tree that was asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from cfgjax.types import TrainState, Tree


class CheckpointError(Exception):
    """A checkpoint that is missing, unreadable, or of another tree than the one asked for."""


def open_folder(folder: Path, keep: int = 2) -> ocp.CheckpointManager:
    """A manager that saves into the folder and keeps the last ``keep`` checkpoints; a context manager, too.

    Leaving its context (or ``wait_until_finished()``) waits for the save under way. A save that was cut off leaves
    only a temporary folder, which is removed here and never read.
    """
    options = ocp.CheckpointManagerOptions(
        preservation_policy=checkpoint_managers.LatestN(keep), cleanup_tmp_directories=True
    )
    return ocp.CheckpointManager(Path(folder).absolute(), options=options)


def _fields(state: TrainState) -> dict[str, Tree]:
    """The state's fields by name, without averages where it keeps none: such a checkpoint knows nothing of them."""
    fields = state._asdict()
    return fields if state.averages else {name: value for name, value in fields.items() if name != "averages"}


def save(manager: ocp.CheckpointManager, state: TrainState, metadata: Mapping[str, Any]) -> None:
    """Starts to save the state under its own step, with the metadata (JSON) beside it, and returns at once."""
    manager.save(
        int(state.step),
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(_fields(state)), metadata=ocp.args.JsonSave(dict(metadata))
        ),
        force=True,
    )


def latest(folder: Path) -> int | None:
    """The step of the newest whole checkpoint in the folder, or None."""
    if not Path(folder).is_dir():
        return None
    steps = ocp.utils.checkpoint_steps(Path(folder).absolute())
    return max(steps, default=None)


def _abstract(like: Tree) -> Tree:
    """Shapes, dtypes and shardings of a tree of arrays."""
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, like)


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    """The shape in which Orbax stores each leaf: a typed key's is that of its numbers."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {_plain_name(path): tuple(_stored(leaf).shape) for path, leaf in leaves}


def _stored(leaf: Any) -> Any:
    is_key = hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _plain_name(path: tuple[Any, ...]) -> str:
    """A leaf's path without the brackets that tell a tuple's field from a mapping's key."""
    parts = (getattr(key, "name", getattr(key, "key", getattr(key, "idx", None))) for key in path)
    return "/".join(str(part) for part in parts)


def _require_same_tree(folder: Path, found: Tree, wanted: Tree) -> None:
    found_leaves, wanted_leaves = _shapes(found), _shapes(wanted)
    if found_leaves.keys() != wanted_leaves.keys():
        odd = sorted(found_leaves.keys() ^ wanted_leaves.keys())
        raise CheckpointError(f"checkpoint {folder} holds another tree than asked for: {odd[0]} is in one only")
    for name, shape in wanted_leaves.items():
        if found_leaves[name] != shape:
            raise CheckpointError(f"checkpoint {folder}: {name} has shape {found_leaves[name]}, wanted {shape}")


def restore(folder: Path, like: TrainState, step: int | None = None) -> TrainState:
    """The saved state of a step, by default the newest.

    Args:
        folder: the folder of checkpoints.
        like: a state of the same tree, shapes and shardings; its values are not read.
        step: which checkpoint.

    Raises:
        CheckpointError: none there, unreadable, or of another tree; the message names the folder.
    """
    step = latest(folder) if step is None else step
    if step is None:
        raise CheckpointError(f"no checkpoint in {folder}")
    where = Path(folder) / str(step)
    try:
        handlers = {"state": ocp.StandardCheckpointHandler(), "metadata": ocp.JsonCheckpointHandler()}
        with ocp.CheckpointManager(Path(folder).absolute(), item_handlers=handlers) as manager:
            found = manager.item_metadata(step)["state"]
            if found is None:
                raise CheckpointError(f"checkpoint {where} holds no state")
            _require_same_tree(where, getattr(found, "tree", found), like)
            args = ocp.args.Composite(state=ocp.args.StandardRestore(_abstract(_fields(like))))
            return like._replace(**manager.restore(step, args=args)["state"])
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"checkpoint {where} is unreadable: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
