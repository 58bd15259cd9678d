"""Reading a checkpoint back, whole or not at all; the newest that is whole."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Container, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from cfgjax.checkpoints.checksums import checksums
from cfgjax.checkpoints.errors import CheckpointError, NoCheckpointError, UnreachableError, is_of_system, reason
from cfgjax.checkpoints.metadata import check_digest
from cfgjax.checkpoints.save import METADATA, STATE, all_steps, open_array
from cfgjax.checkpoints.trees import (
    StorableTree,
    flatten_with_names,
    holds_parameters_alone,
    place_like,
    places,
    require_same,
    to_abstract,
)
from cfgjax.checks import require_count, require_kind
from cfgjax.contracts import Contract, NonNegativeInt, checked
from cfgjax.types import Tree

Found = tuple[Tree, dict[str, Any]]
"""A tree, and what was given with it."""


class Restored(NamedTuple):
    """A tree read back.

    Attributes:
        state: the tree, placed as was asked.
        metadata: what was given with it.
        step: whose it is.
        corrupt: newer steps that did not read, with what was wrong.
    """

    state: Tree
    metadata: dict[str, Any]
    step: int
    corrupt: dict[int, str]


@contextlib.contextmanager
def described(folder: Path, step: int) -> Iterator[tuple[ocp.CheckpointManager, Tree]]:
    """A folder's manager, and the stored state's description by shapes and types.

    Raises:
        CheckpointError: the step holds no state.
    """
    handlers = {STATE: ocp.StandardCheckpointHandler(), METADATA: ocp.JsonCheckpointHandler()}
    options = ocp.CheckpointManagerOptions(create=False)
    with ocp.CheckpointManager(Path(folder).absolute(), options=options, item_handlers=handlers) as manager:
        found = manager.item_metadata(step)[STATE]
        if found is None:
            raise CheckpointError(f"checkpoint {Path(folder) / str(step)} holds no state")
        yield manager, getattr(found, "tree", found)


def _read(folder: Path, like: Tree, step: int) -> Found:
    where, wanted = Path(folder) / str(step), to_abstract(like)
    state, written = _agreed(whole_or_error(lambda: _fetched(folder, step, wanted), where), where)
    record = check_digest(where, written)
    for name, checksum in checksums(flatten_with_names(state)).items():
        if record["checksums"].get(name) != checksum:
            raise CheckpointError(f"checkpoint {where} is corrupt: {name} is not what was written")
    return place_like(state, like), record["given"]


def _fetched(folder: Path, step: int, wanted: Tree) -> tuple[Tree, Any]:
    """The stored state and what lies beside it, unchecked."""
    where = Path(folder) / str(step)
    with described(folder, step) as (manager, found):
        if holds_parameters_alone(found) and not holds_parameters_alone(wanted):
            raise CheckpointError(
                f"checkpoint {where} is of parameters alone, with no optimizer's state to go on from; restore_params "
                "reads them"
            )
        require_same(where, found, wanted)
        if jax.process_count() > 1:
            return _fetched_alone(where, wanted), json.loads((where / METADATA / METADATA).read_text())
        args = {STATE: ocp.args.StandardRestore(wanted), METADATA: ocp.args.JsonRestore()}
        read = manager.restore(step, args=ocp.args.Composite(**args))
    return read[STATE], read[METADATA]


def _fetched_alone(where: Path, wanted: Tree) -> Tree:
    """The stored state, of which this process reads what its devices hold, with no other process's help.

    Orbax's way has the processes meet: one that finds its files corrupt would leave the others there.
    """
    leaves, structure = jax.tree.flatten(wanted)

    def leaf_of(place: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        array = open_array(where / STATE, place)
        return jax.make_array_from_callback(
            leaf.shape, leaf.sharding, lambda index: np.asarray(array[index].read().result(), leaf.dtype)
        )

    return jax.tree.unflatten(structure, map(leaf_of, places(wanted).values(), leaves))


def whole_or_error(read: Callable[[], Any], where: Path) -> Any:
    """What reading gives, or the CheckpointError it ends in."""
    try:
        return read()
    except CheckpointError as error:
        return error
    except Exception as error:
        if is_of_system(error):
            return UnreachableError(f"checkpoint {where} cannot be read: {reason(error)}")
        return CheckpointError(f"checkpoint {where} is unreadable: {reason(error)}")


def _agreed(found: Any, where: Path) -> Any:
    """What was found, once all processes have found theirs: then they go on together.

    Raises:
        CheckpointError: this process, or another one, has not.
    """
    is_whole_everywhere = _is_whole_everywhere(found)
    if isinstance(found, CheckpointError):
        raise found
    if not is_whole_everywhere:
        raise CheckpointError(f"checkpoint {where} does not read on another process")
    return found


def _is_whole_everywhere(found: Any) -> bool:
    is_whole = not isinstance(found, CheckpointError)
    if jax.process_count() == 1:
        return is_whole
    return bool(np.all(multihost_utils.process_allgather(np.asarray(is_whole))))


def _attempt(where: Path, read: Callable[[], Found]) -> Found | CheckpointError:
    try:
        return _agreed(whole_or_error(read, where), where)
    except UnreachableError:
        raise
    except CheckpointError as error:
        return error


@checked
def restore(folder: Path, like: StorableTree, step: NonNegativeInt | None = None) -> Restored:
    """The tree saved at a step, or by default the newest that is whole.

    Every array is compared with the checksum that was taken when it was saved. It may lie on other devices than
    before, and on another number of them.

    Args:
        folder: the folder of checkpoints.
        like: one of the same structure, shapes and shardings; its values are not read.
        step: which checkpoint; then no other is tried.

    Raises:
        NoCheckpointError: none there.
        UnreachableError: the system refuses to read one, which may be whole.
        CheckpointError: none whole, or of another tree; the message names the newest one tried.
    """
    return newest_whole(folder, step, lambda candidate: _read(folder, like, candidate))


def newest_whole(folder: Path, step: int | None, read: Callable[[int], Found]) -> Restored:
    """What ``read`` gives, a tree and its metadata, of the newest step of which all processes read it whole.

    Raises:
        CheckpointError: as ``restore``.
    """
    corrupt: dict[int, str] = {}
    while (candidate := _newest(folder, step, corrupt)) is not None:
        found = _attempt(Path(folder) / str(candidate), functools.partial(read, candidate))
        if not isinstance(found, CheckpointError):
            still_there = {each: message for each, message in corrupt.items() if each in all_steps(folder)}
            return Restored(*found, candidate, still_there)
        corrupt[candidate] = str(found)
    if not corrupt:
        raise NoCheckpointError(f"no checkpoint in {folder}")
    raise CheckpointError(next(iter(corrupt.values())))


def _newest(folder: Path, step: int | None, tried: Container[int]) -> int | None:
    """The newest step that was not tried; the folder is listed anew, as a run may be saving into it.

    Of several processes all take what the first one sees: others may see its folders later.
    """
    found = next((each for each in (all_steps(folder) if step is None else [step]) if each not in tried), None)
    if jax.process_count() == 1:
        return found
    agreed = int(multihost_utils.broadcast_one_to_all(np.asarray(-1 if found is None else found, np.int32)))
    return None if agreed < 0 else agreed


def _require_steps(name: str, corrupt: Any) -> None:
    require_kind(name, corrupt, Mapping, "a mapping of steps, as checkpoints.restore(...).corrupt is")
    for step in corrupt:
        require_count(name, step, 0)


@checked
def quarantine(folder: Path, corrupt: Annotated[dict[int, str], Contract(_require_steps)], into: Path) -> None:
    """Moves corrupt checkpoints into another folder, so that their steps can be saved again; none is deleted.

    Args:
        folder: the folder of checkpoints.
        corrupt: their steps, as ``restore`` gives them.
        into: where to; made if need be.

    Raises:
        OSError: a checkpoint that is not there, or cannot be moved.
    """
    into = Path(into)
    for step in corrupt:
        into.mkdir(parents=True, exist_ok=True)
        count = sum(1 for each in into.iterdir() if each.name.startswith(f"{step}-"))
        (Path(folder) / str(step)).rename(into / f"{step}-{count}")
