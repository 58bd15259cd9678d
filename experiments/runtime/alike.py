"""What the processes of a command must have in common: compared through texts, and a difference told by host.

No device computes for it, so that processes of other versions can compare themselves, too.
"""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from experiments.cli.main import UserError
from experiments.runtime import peers

ABSENT = "absent"
"""What is said of a fact that a process does not have, and others do."""
_COUNT = itertools.count()
_LONGEST = 60
_MOST_ALIKE, _MOST_ODD, _MOST_VALUES, _MOST_NAMES = 3, 4, 3, 8


class Facts(NamedTuple):
    """What a process has of one kind.

    Attributes:
        mend: what to do where processes differ.
        values: by names of which one says "NAME is VALUE"; None is not known, and differs from nothing.
    """

    mend: str
    values: Mapping[str, str | None]


def _holders(name: str, each: Sequence[Mapping[str, str | None]]) -> list[tuple[str, list[int]]]:
    """The values of a fact, each with its processes: the most frequent first, of as many the one of the first."""
    holders: dict[str, list[int]] = {}
    for index, values in enumerate(each):
        value = values.get(name, ABSENT)
        if value is not None:
            holders.setdefault(value, []).append(index)
    return sorted(holders.items(), key=lambda pair: (-len(pair[1]), pair[1]))


def people(indices: Sequence[int], most: int, who: Callable[[int], str]) -> str:
    """So many processes by name, and how many more there are."""
    named = [who(index) for index in indices[:most]]
    return ", ".join(named) + (f" and {len(indices) - most} more" if len(indices) > most else "")


def _excerpts(values: Sequence[str]) -> list[str]:
    """The values; long ones from a little before the first letter in which they differ."""
    if max(map(len, values)) <= _LONGEST:
        return list(values)
    same = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*values, strict=False))
    start = max(0, sum(1 for _ in same) - _LONGEST // 3)
    stop = start + _LONGEST
    before = "..." if start else ""
    return [f"{before}{value[start:stop]}{'...' if value[stop:] else ''}" for value in values]


def _sentence(name: str, each: Sequence[Mapping[str, str | None]], who: Callable[[int], str]) -> str:
    holders = _holders(name, each)
    shown, rest = holders[:_MOST_VALUES], holders[_MOST_VALUES:]
    values = _excerpts([value for value, _ in shown])
    most = [_MOST_ALIKE, *[_MOST_ODD] * len(values)]
    parts = [f"{value} on {people(of, many, who)}" for value, (_, of), many in zip(values, shown, most, strict=False)]
    if rest:
        parts.append(f"something else on {sum(len(of) for _, of in rest)} more")
    return f"{name} is {', and '.join(parts)}"


def difference(told: Sequence[Sequence[Facts]], who: Callable[[int], str]) -> str:
    """In what processes differ, of bounded length, with what mends it; empty where they are alike.

    The first fact that differs is told by value and process, the odd ones last; of others the names.

    Args:
        told: the facts of each process.
        who: what a process is called.
    """
    each = [{name: value for kind in facts for name, value in kind.values.items()} for facts in told]
    mends = {name: kind.mend for facts in reversed(told) for kind in facts for name in kind.values}
    kinds = itertools.chain(*itertools.zip_longest(*told, fillvalue=Facts("", {})))
    ordered = dict.fromkeys(name for kind in kinds for name in kind.values)
    names = [name for name in ordered if len(_holders(name, each)) > 1]
    if not names:
        return ""
    first, others = names[0], names[1 : 1 + _MOST_NAMES]
    more = f" and {len(names) - 1 - len(others)} more" if len(names) - 1 > len(others) else ""
    as_well = f"; also in {', '.join(others)}{more}" if others else ""
    return f"the processes differ: {_sentence(first, each, who)}{as_well}; {mends[first]}"


def _facts(text: str) -> list[Facts]:
    return [Facts(*kind) for kind in json.loads(text)]


def once(key: str) -> str:
    """The key with the number of the call, which is the same on all processes: a key of texts serves once."""
    return f"{key} {next(_COUNT)}"


def require_alike(key: str, *facts: Facts) -> None:
    """Compares the facts of this process with those of all others, which ask for the same at the same place.

    Args:
        key: what is compared.
        facts: of this process; a name stands in one kind.

    Raises:
        UserError: they differ; the same message on all processes.
    """
    told = peers.texts(once(key), json.dumps(facts))
    if len(set(told)) == 1:
        return
    message = difference([_facts(text) for text in told], peers.name)
    if message:
        raise UserError(message)
