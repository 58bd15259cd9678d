"""Each host's share of a step's time: what it does itself, while others may be waiting for it.

The hosts of a synchronous step have the same time for it, and their clocks need not agree. So each process measures on
its own clock, in seconds a step: host_i outside of all waiting (data, Python, lines of metrics), blocked_i waiting for
its devices, stalled_i of the latter, in which the whole process stood still, and probe_i, of a small program on its own
devices alone. The one that waits least waits for nobody, so that

(H1)    own_i = host_i + stalled_i + c probe_i / max_j probe_j,    c = min_j (blocked_j - stalled_j),

where c is computing and communication, and the share of host i is own_i / (host_i + blocked_i), at most 1.
"""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

FACTOR = 4 / 3
"""How many times the others' median share the share of a host is that holds the others up: they wait for a quarter."""


class Figures(NamedTuple):
    """What a process measured, in seconds; all but the probe are means of a step.

    Attributes:
        host: outside of all waiting.
        blocked: waiting for its devices.
        stalled: of ``blocked``, in which the whole process stood still.
        probe: of the probe of its devices.
    """

    host: float
    blocked: float
    stalled: float
    probe: float


class Slowest(NamedTuple):
    """The host that holds the others up.

    Attributes:
        index: of the process.
        share: of its step's time.
        others: the median share of the others.
    """

    index: int
    share: float
    others: float


def _parts(figures: Sequence[Figures]) -> list[tuple[float, float, float]]:
    """The terms of own_i in (H1)."""
    computing = min(each.blocked - each.stalled for each in figures)
    longest = max(each.probe for each in figures)
    return [(each.host, each.stalled, computing * each.probe / longest) for each in figures]


def shares_of(figures: Sequence[Figures]) -> list[float]:
    """The share of each host of its step's time, by (H1)."""
    steps = [each.host + each.blocked for each in figures]
    return [sum(parts) / step for parts, step in zip(_parts(figures), steps, strict=True)]


def slowest_of(shares: Sequence[float]) -> Slowest | None:
    """The host whose share is FACTOR times the median of the others', or more; None where there is none."""
    index = max(range(len(shares)), key=shares.__getitem__)
    others = median(share for other, share in enumerate(shares) if other != index)
    return Slowest(index, shares[index], others) if shares[index] >= FACTOR * others else None


def cause_of(figures: Sequence[Figures], index: int) -> str:
    """What a host spends more time in than the others' median: the greatest of three differences."""
    parts = _parts(figures)
    others = [median(column) for column in zip(*(parts[:index] + parts[index + 1 :]), strict=True)]
    excess = [mine - theirs for mine, theirs in zip(parts[index], others, strict=True)]
    return ("data and Python", "standing still", "its devices")[excess.index(max(excess))]
