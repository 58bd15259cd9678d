"""Another scale, or another rule, from time to time."""

from __future__ import annotations

from collections.abc import Callable

from cfgjax.contracts import GuidanceScale, checked
from cfgjax.guidance.pairs import extrapolate
from cfgjax.guidance.thresholding import Edge
from cfgjax.piecewise import Piecewise, piecewise
from cfgjax.types import LabelledField, Pair, Scale


@piecewise
@checked
def stages(
    pair: Pair,
    edges: tuple[Edge, ...],
    scales: tuple[GuidanceScale, ...],
    build: Callable[[Pair, Scale], LabelledField] = extrapolate,
) -> LabelledField:
    """The guided field whose scale is the first of ``scales`` before the first edge, and so on: a Piecewise.

    In each stage a scale known as 1 or 0 evaluates one side alone. ``interval`` is the case (1, w, 1). A negative
    window is (w, 0): guidance first, then the null field alone, which spreads what guidance drew together; on normal
    laws the late scale that gives the label its variance back is under 0 where the edge is late.

    Args:
        pair: the two sides.
        edges: the times in [0, 1) at which the scale changes, increasing, not traced; on the grid a solver keeps its
            order (``time_grids.insert_times``).
        scales: one more, each as for ``extrapolate``.
        build: (pair, scale) -> field, the rule of each stage.

    Source: Ventura et al., arXiv 2602.00716 (negative windows, w zero-based there: its -1 is w = 0). It experiments
    with two stages; its theory's 1 + w_0 + c s of the variance s = (beta / alpha)^2 is a function of t.

    Raises:
        ValueError: not one scale more than edges; edges that do not increase.
    """
    if len(scales) != len(edges) + 1:
        raise ValueError(f"scales must be one more than edges, got {len(scales)} and {len(edges)} edges")
    return piecewise(build)(pair, Piecewise(tuple(float(edge) for edge in edges), tuple(scales)))
