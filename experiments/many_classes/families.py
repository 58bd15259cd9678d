"""How the number of classes grows with the dimension, and the sizes at which each is sampled."""

from typing import NamedTuple

import numpy as np

EXPONENTS = (0.1, 0.2, 0.4)
_NUMBERS = (10, 100, 1_000, 10_000, 100_000)
_WORK = 1e9
"""Classes times directions times samples of one sampling, about."""


class Size(NamedTuple):
    """K classes, whose centres lie in r of d directions, of a family."""

    family: str
    num_classes: int
    rank: int
    dimension: int

    @property
    def exponent(self) -> float:
        """a of K = e^(a r)."""
        return float(np.log(self.num_classes) / self.rank)

    @property
    def num_samples(self) -> int:
        """Fewer where a sample costs more: in many directions each tells more of the variance."""
        return int(np.clip(_WORK / (self.num_classes * (self.rank + 30)), 8, 1000))


def exponential(a: float) -> str:
    """The name of the family K = e^(a d)."""
    return f"K = exp({a:g} d)"


def sizes(max_classes: int, max_dimension: int) -> list[Size]:
    """K = e^(a d) for three a, K = d, K = 1000, and K = 100,000 in r of d directions; what is too large is left out."""
    numbers = [number for number in _NUMBERS if number <= max_classes]
    found = [
        Size(exponential(a), number, dimension, dimension)
        for a in EXPONENTS
        for number in numbers
        for dimension in [round(np.log(number) / a)]
    ]
    found += [Size("K = d", number, number, number) for number in numbers[:4]]
    found += [Size("K = 1000", 1000, dimension, dimension) for dimension in (10, 30, 100, 300, 1_000, 10_000)]
    found += [Size("K = 100000, low rank", 100_000, rank, 10 * rank) for rank in (30, 100, 300, 1_000)]
    return [size for size in found if size.num_classes <= max_classes and size.dimension <= max_dimension]
