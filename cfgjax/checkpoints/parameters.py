"""The parameters of a training state, or one of their averages, read back without the optimizer that made it.

(P1) A checkpoint of parameters alone is that of {"params": parameters}, as published weights have no more: these are
     their own moving average.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from cfgjax.checkpoints.checksums import host_checksum
from cfgjax.checkpoints.errors import CheckpointError
from cfgjax.checkpoints.metadata import check_digest
from cfgjax.checkpoints.restore import Found, Restored, described, newest_whole, whole_or_error
from cfgjax.checkpoints.save import METADATA, STATE, latest_step, read_each
from cfgjax.checkpoints.trees import flatten_with_names, holds_parameters_alone, places, require_same
from cfgjax.checks import require_choice, require_count
from cfgjax.contracts import Contract, NonNegativeInt, ShapedTree, checked
from cfgjax.types import Tree

AVERAGES = "averages"


def _require_which(name: str, which: object) -> None:
    if isinstance(which, str):
        require_choice(name, which, ("ema", "params"))
    else:
        require_count(name, which, 0)


Which = Annotated[str | int, Contract(_require_which)]
""""ema", "params", or the index of one of a state's further averages."""


@checked
def restore_params(
    folder: Path, step: NonNegativeInt | None = None, which: Which = "ema", like: ShapedTree | None = None
) -> Restored:
    """The moving average of the parameters in a saved ``TrainState``, or the parameters, or another average.

    Of a checkpoint of parameters alone (P1) it is the parameters.

    Nothing need be known of the state: names, shapes and types are the checkpoint's own, and no other array of it is
    read. As in ``restore`` every array is compared with the checksum that was taken when it was saved. The arrays lie
    whole on the default device, wherever and however they lay.

    Args:
        folder: the folder of checkpoints.
        step: which checkpoint, and then no other is tried; by default the newest whose parameters are whole.
        which: "ema"; "params", the parameters themselves, at which gradients are taken (a schedule-free
            optimizer evaluates others, and its averages are of those); or the index of one of the state's ``averages``.
        like: a tree of arrays or ``jax.ShapeDtypeStruct``, of which the answer has the containers. Without it
            mappings are dicts, and all other containers, named tuples too, lists or dicts: what a network by Flax or
            Haiku takes, while one by Equinox needs this.

    Returns:
        What ``restore`` returns; its ``state`` is the tree.

    Raises:
        NoCheckpointError: none there.
        UnreachableError: the system refuses to read one, which may be whole.
        CheckpointError: none whole, none with such parameters, or of another tree than ``like``.
    """
    return newest_whole(folder, step, lambda candidate: _read(folder, candidate, which, like))


@checked
def holds_params_alone(folder: Path) -> bool:
    """Whether the newest checkpoint in a folder is of parameters alone (P1); False where none is, or it is unreadable.

    Args:
        folder: the folder of checkpoints.
    """
    step = latest_step(folder)
    if step is None:
        return False

    def read() -> bool:
        with described(folder, step) as (_, found):
            return holds_parameters_alone(found)

    return whole_or_error(read, Path(folder) / str(step)) is True


def _part_of(where: Path, tree: Any, which: str | int) -> dict[str, Any]:
    """The part of a stored state's description that is asked for, in its own place, all others left out."""
    name = AVERAGES if isinstance(which, int) else which
    if name == "ema" and holds_parameters_alone(tree):
        name = "params"
    held = tree.get(name) if isinstance(tree, dict) else None
    if isinstance(which, int):
        averages = held if isinstance(held, list) else []
        if which >= len(averages):
            raise CheckpointError(f"checkpoint {where} holds no average {which}, but {len(averages)} beside the EMA")
        return {AVERAGES: [one if index == which else None for index, one in enumerate(averages)]}
    if held is None:
        raise CheckpointError(f"checkpoint {where} holds no {which}, as the checkpoint of a TrainState does")
    return {name: held}


def _whole_arrays(where: Path, asked: Tree, sums: Mapping[str, str]) -> list[jax.Array]:
    """The described arrays in the order of their leaves, each compared with its checksum."""
    wanted = places(asked)
    names = {place: name for name, place in wanted.items()}
    found = {}
    for place, array in read_each(where / STATE, names):
        if host_checksum(array) == sums.get(names[place]):
            found[place] = jnp.asarray(array)
    lost = [name for name, place in wanted.items() if place not in found]
    if lost:
        raise CheckpointError(f"checkpoint {where} is corrupt: {lost[0]} is not what was written")
    return [found[place] for place in wanted.values()]


def _read(folder: Path, step: int, which: str | int, like: Tree) -> Found:
    where = Path(folder) / str(step)
    with described(folder, step) as (manager, found):
        read = manager.restore(step, args=ocp.args.Composite(**{METADATA: ocp.args.JsonRestore()}))
    record, asked = check_digest(where, read[METADATA]), _part_of(where, found, which)
    part = asked[AVERAGES][which] if isinstance(which, int) else next(iter(asked.values()))
    if like is not None:
        require_same(where, part, like)
    arrays = dict(zip(flatten_with_names(part), _whole_arrays(where, asked, record["checksums"]), strict=True))
    form = part if like is None else like
    tree = jax.tree.unflatten(jax.tree.structure(form), [arrays[name] for name in flatten_with_names(form)])
    return tree, record["given"]
