"""Parts of a network by the names of its parameters: which of them a pattern means, and how they are told in a line."""

import difflib
import fnmatch
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import jax

from cfgjax.types import Tree
from experiments.cli.main import UserError
from experiments.config.schema import Experiment

_NUMBER = re.compile(r"_(\d+)(?=/|$)")
_NUM_NEAR = 5


def flatten(params: Tree) -> dict[str, Any]:
    """The leaves by their names, as Block_0/Dense_0/kernel: without the collection of Flax in which they lie.

    >>> list(flatten({"params": {"Dense_0": {"bias": 0, "kernel": 1}}}))
    ['Dense_0/bias', 'Dense_0/kernel']
    """
    leaves = jax.tree.leaves_with_path(params)
    names = [jax.tree_util.keystr(path, simple=True, separator="/").removeprefix("params/") for path, _ in leaves]
    return dict(zip(names, (leaf for _, leaf in leaves), strict=True))


def _parts_of(name: str) -> Iterator[str]:
    """A name and what it is a part of, the largest first.

    >>> list(_parts_of("Block_0/Dense_0/bias"))
    ['Block_0', 'Block_0/Dense_0', 'Block_0/Dense_0/bias']
    """
    return itertools.accumulate(name.split("/"), "{}/{}".format)


def meant(patterns: Collection[str], names: Collection[str], option: str) -> set[str]:
    """The names that patterns mean: each is a name, or what names are a part of, in which * stands for any letters.

    Args:
        patterns: such as Dense_0, or Block_*/Dense_0.
        names: of all parameters.
        option: that gives the patterns, for the message.

    Raises:
        UserError: a pattern that means nothing.
    """
    parts = {part: None for name in names for part in _parts_of(name)}
    for pattern in patterns:
        if not fnmatch.filter(parts, pattern):
            near = difflib.get_close_matches(pattern, parts, _NUM_NEAR, 0.5) or folded(names, names)
            raise UserError(f"{option} {pattern!r} is no part of this network; near it: {', '.join(near)}")
    asked = {part for pattern in patterns for part in fnmatch.filter(parts, pattern)}
    return {name for name in names if asked.intersection(_parts_of(name))}


def frozen_of(experiment: Experiment, params: Tree) -> Tree | None:
    """Which parameters an experiment freezes, as a tree of booleans; None where it freezes none.

    Raises:
        UserError: a name that is none of theirs, or nothing left to train.
    """
    if not experiment.freeze:
        return None
    names = list(flatten(params))
    frozen = meant(experiment.freeze, names, "freeze")
    if len(frozen) == len(names):
        raise UserError(f"freeze {' '.join(experiment.freeze)} leaves no parameter to train")
    return jax.tree.unflatten(jax.tree.structure(params), [name in frozen for name in names])


def _whole_parts(chosen: Collection[str], names: Collection[str]) -> list[str]:
    """The largest parts all of whose names are chosen."""
    sizes, found = (Counter(part for name in each for part in _parts_of(name)) for each in (names, chosen))
    wholes = (next(part for part in _parts_of(name) if found[part] == sizes[part]) for name in chosen)
    return list(dict.fromkeys(wholes))


def _runs(numbers: list[int]) -> list[str]:
    """Numbers that follow each other as one, as a shell writes them.

    >>> _runs([0, 1, 2, 5])
    ['{0..2}', '5']
    """
    starts = [number for number in numbers if number - 1 not in numbers]
    stops = [number for number in numbers if number + 1 not in numbers]
    return [str(a) if a == b else f"{{{a}..{b}}}" for a, b in zip(starts, stops, strict=True)]


def _fold_once(parts: list[str], place: int) -> list[str]:
    """The parts, those that differ by their first number (place 0), or their last one (-1), folded."""
    groups: dict[tuple[str, str], list[int]] = {}
    for part in parts:
        matches = list(_NUMBER.finditer(part))
        ends = (part[: matches[place].start(1)], part[matches[place].end(1) :]) if matches else (part, "")
        groups.setdefault(ends, []).extend(int(match[1]) for match in matches[place:][:1])
    folded = ([f"{a}{run}{b}" for run in _runs(sorted(found))] if found else [a] for (a, b), found in groups.items())
    return list(itertools.chain.from_iterable(folded))


def folded(chosen: Collection[str], names: Collection[str]) -> list[str]:
    """The chosen names in few words: whole parts by their own names, those that differ by a number together.

    >>> folded(["A_0/w", "A_0/b", "A_1/w", "A_1/b", "B/w"], ["A_0/w", "A_0/b", "A_1/w", "A_1/b", "B/w", "B/b"])
    ['A_{0..1}', 'B/w']
    """
    parts = _whole_parts(chosen, names)
    for place in (0, -1, 0):
        parts = _fold_once(parts, place)
    return parts


def told(chosen: Collection[str], params: Tree) -> str:
    """How many parameters the chosen names have, and these names, in a line."""
    leaves = flatten(params)
    count = sum(leaves[name].size for name in chosen)
    return f"{count:,} parameters: {', '.join(folded([name for name in leaves if name in chosen], leaves))}"


def told_frozen(frozen: Tree, params: Tree) -> str:
    """What is frozen and what is trained, in two lines."""
    is_frozen = flatten(frozen)
    kinds = [[name for name in is_frozen if is_frozen[name] == wanted] for wanted in (True, False)]
    return "\n".join(f"{word} {told(names, params)}" for word, names in zip(("frozen", "trained"), kinds, strict=True))
