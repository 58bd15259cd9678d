"""Rows of the study, and their table."""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.many_classes.families import Size
from experiments.many_classes.limit import Limit
from experiments.many_classes.measures import Found


class Row(NamedTuple):
    """What was found at a size and a guidance scale, beside the limit for its a."""

    size: Size
    scale: float
    found: Found
    limit: Limit


def table(rows: Sequence[Row]) -> str:
    """A line a row, in Markdown.

    >>> row = Row(Size("K = d", 100, 100, 100), 3.0, Found(1.2, 0.01, 0.9, 0.02, 0.1), Limit(1.19, 0.91, 0.2))
    >>> print(table([row]))
    | family | K | r | d | a | w | overlap | its limit | variance | its limit | KL, nats |
    |---|---|---|---|---|---|---|---|---|---|---|
    | K = d | 100 | 100 | 100 | 0.0461 | 3 | 1.200 ± 0.010 | 1.190 | 0.900 ± 0.020 | 0.910 | 0.100 |
    """
    lines = ["| family | K | r | d | a | w | overlap | its limit | variance | its limit | KL, nats |"]
    lines.append("|---|---|---|---|---|---|---|---|---|---|---|")
    for size, scale, found, limit in rows:
        overlap = f"{found.overlap:.3f} ± {found.overlap_error:.3f} | {limit.overlap:.3f}"
        variance = f"{found.variance_ratio:.3f} ± {found.variance_error:.3f} | {limit.variance_ratio:.3f}"
        numbers = f"{size.num_classes} | {size.rank} | {size.dimension} | {size.exponent:.4f} | {scale:g}"
        lines.append(f"| {size.family} | {numbers} | {overlap} | {variance} | {found.divergence:.3f} |")
    return "\n".join(lines)
