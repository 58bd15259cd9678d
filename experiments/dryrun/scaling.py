"""What the collectives of a program cost beside its work, on paper: bytes over links against operations over a peak.

With values of b bytes on each of n devices, each device passes on

- 2 (n - 1)/n b for an all-reduce, and (n - 1)/n b for an all-gather or an all-to-all;
- (n - 1) b for a reduce-scatter, whose values are a part each;
- b for a permutation, by the one link to a neighbour.

Islands of m devices, N of them, with slower links between them: first as above within an island, then each device
passes on its share, 1/m, among N. An all-to-all has no such share: of b, (N - 1)/N go to other islands. All links are
taken to be busy at once and there is no latency, so these seconds are the least.

Source: Thakur, Rabenseifner and Gropp, Optimization of collective communication operations in MPICH, 2005.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

ASSUMED_SHARE = 0.5
"""The share of its peak that a device is taken to reach where its compiler estimates no cycles."""

LEAST = 0.5
"""The efficiency under which scaling has stopped."""


class Network(NamedTuple):
    """The links of a device.

    Attributes:
        fast: bytes/s one way to the devices of its island, by all of its links.
        links: how many neighbours share these; 1 where a switch gives all to any one device.
        slow: bytes/s one way to other islands.
        island: how many devices reach each other by fast links; None for all of them.
    """

    fast: float
    links: int = 1
    slow: float = float("inf")
    island: int | None = None


def _of_ring(count: int) -> float:
    """The part of a value that each device of a ring passes on when all get all of it."""
    return (count - 1) / count


def collective_seconds(kind: str, num_bytes: float, num_devices: int, network: Network) -> float:
    """The seconds of a collective whose value has so many bytes on each device, alone on the links.

    >>> collective_seconds("all-reduce", 8.0, 8, Network(fast=7.0))
    2.0
    >>> collective_seconds("all-reduce", 8.0, 16, Network(fast=7.0, slow=0.5, island=8))
    4.0
    """
    island = min(num_devices, network.island or num_devices)
    num_islands = math.ceil(num_devices / island)
    if kind == "collective-permute":
        return num_bytes / (network.slow if num_islands > 1 else network.fast / network.links)
    whole = num_bytes * num_devices if kind == "reduce-scatter" else num_bytes
    inside, between = (whole / num_islands, whole) if kind == "all-to-all" else (whole, whole / island)
    seconds = _of_ring(island) * inside / network.fast + _of_ring(num_islands) * between / network.slow
    return 2 * seconds if kind == "all-reduce" else seconds


class OnPaper(NamedTuple):
    """A run of a program on paper.

    Attributes:
        flops: of the network, on one device.
        bytes: of the collectives' values, on one device.
        work: seconds of the work.
        waits: seconds of the collectives.
    """

    flops: float
    bytes: float
    work: float
    waits: float

    @property
    def alone(self) -> float:
        """Seconds where nothing runs beside the collectives."""
        return self.work + self.waits

    @property
    def hidden(self) -> float:
        """Seconds where the shorter of both runs beside the longer."""
        return max(self.work, self.waits)


def on_paper(figures: dict[str, Any], num_devices: int, peak: float, network: Network) -> OnPaper:
    """A program's run, of its figures.

    Args:
        figures: of one program, as ``figures.figures_of`` gives them.
        num_devices: that it runs on.
        peak: FLOP/s of a device, for programs without estimated cycles.
        network: its links.
    """
    flops = figures["model_flops"] / num_devices
    work = figures.get("seconds_at_clock") or flops / (peak * ASSUMED_SHARE)
    sent = figures["collectives"]
    waits = sum(collective_seconds(kind, each["bytes"], num_devices, network) for kind, each in sent.items())
    return OnPaper(flops, sum(each["bytes"] for each in sent.values()), work, waits)


def efficiencies(seconds: Mapping[int, float]) -> dict[int, float]:
    """The speed for each device over that on the fewest devices, of the seconds of a run by the number of devices.

    >>> efficiencies({16: 4.0, 4: 8.0})
    {4: 1.0, 16: 0.5}
    """
    fewest = min(seconds)
    return {count: fewest * seconds[fewest] / (count * each) for count, each in sorted(seconds.items())}


def limit(efficiencies: Mapping[int, float]) -> int | None:
    """The least number of devices whose efficiency is below LEAST; None where there is none.

    >>> limit({4: 0.9, 64: 0.3, 16: 0.4})
    16
    """
    return min((count for count, share in efficiencies.items() if share < LEAST), default=None)
