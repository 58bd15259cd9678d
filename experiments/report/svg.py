"""A run's curves as SVG for a page: their colours are the page's own, light or dark, and nothing in them is fetched."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

INK, LINE, FIRST, SECOND = "#010203", "#040506", "#070809", "#0a0b0c"
_COLORS = {INK: "currentColor", LINE: "var(--line)", FIRST: "var(--first)", SECOND: "var(--second)"}
"""Colours that stand for those of the page."""
MOST_POINTS = 1_000
_XML = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"


class Curve(NamedTuple):
    """One panel.

    Attributes:
        key: a word for it.
        title: over it.
        names: of the numbers in it, with what they are called.
        is_logarithmic: whether its axis is.
    """

    key: str
    title: str
    names: Mapping[str, str]
    is_logarithmic: bool = False


CURVES = (
    Curve("loss", "Loss", {"loss": "training", "held_out_loss": "held out"}),
    Curve("gradient", "Gradient norm", {"grad_norm": "gradient norm"}, True),
    Curve("learning-rate", "Learning rate", {"learning_rate": "learning rate"}),
    Curve("speed", "Examples per second", {"examples_per_second": "examples per second"}),
)


class Drawn(NamedTuple):
    """A panel of the page: its title, a sentence with its ends, and the SVG element."""

    title: str
    summary: str
    svg: Markup


def _points(rows: Sequence[Mapping[str, float]], name: str) -> np.ndarray:
    """Steps and values [2, n], no more than so many; NaN among the values are gaps."""
    found = np.asarray([(row["step"], row[name]) for row in rows if name in row], float).reshape(-1, 2).T
    if found.shape[1] <= MOST_POINTS:
        return found
    return found[:, np.unique(np.linspace(0, found.shape[1] - 1, MOST_POINTS).round().astype(int))]


def _summary(called: str, points: np.ndarray) -> str:
    """The first and the last value, and the least between them.

    >>> _summary("loss", np.asarray([[1.0, 2.0, 3.0], [4.0, 0.5, 1.0]]))
    'loss 4 at step 1, 1 at step 3, least 0.5 at step 2'
    """
    steps, values = points[:, np.isfinite(points[1])]
    num_gaps = points.shape[1] - len(values)
    gaps = f"; not finite at {num_gaps} of {points.shape[1]}" if num_gaps else ""
    if not len(values):
        return f"{called}{gaps}"
    least = int(np.argmin(values))
    ends = f"{called} {values[0]:.4g} at step {steps[0]:.0f}, {values[-1]:.4g} at step {steps[-1]:.0f}"
    return f"{ends}, least {values[least]:.4g} at step {steps[least]:.0f}{gaps}"


def _spans_less_than_a_decade(series: Mapping[str, np.ndarray]) -> bool:
    values = np.concatenate([points[1] for points in series.values()])
    values = values[np.isfinite(values) & (values > 0)]
    return bool(values.max() < 10 * values.min())


def _figure(curve: Curve, series: Mapping[str, np.ndarray], restarts: Sequence[int]) -> Figure:
    figure = Figure(figsize=(4.6, 2.7), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    for color, (called, points) in zip((FIRST, SECOND), series.items(), strict=False):
        marker = "o" if points.shape[1] <= 40 else None
        axes.plot(*points, color=color, linewidth=1.6, marker=marker, markersize=3, label=called)
    for step in restarts:
        axes.axvline(step, color=INK, linewidth=1.2, linestyle=":")
    if curve.is_logarithmic and any(np.any(points[1] > 0) for points in series.values()):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}" if _spans_less_than_a_decade(series) else "")
    axes.set_xlabel("step", color=INK)
    axes.grid(color=LINE, linewidth=0.5)
    axes.tick_params(colors=INK, which="both")
    for side, spine in axes.spines.items():
        spine.set(color=INK, linewidth=0.8, visible=side in ("left", "bottom"))
    if len(series) > 1:
        axes.legend(frameon=False, labelcolor=INK)
    return figure


def _svg(figure: Figure, key: str, label: str) -> Markup:
    """The figure as an element of the page: without names of other documents, its names its own."""
    stream = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": key, "font.size": 10}):
        figure.savefig(stream, format="svg")
    root = ElementTree.fromstring(stream.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_XML}metadata", f"{_XML}style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_XML)
        element.attrib = {name.replace(_LINK, "href"): _own(name, value, key) for name, value in element.attrib.items()}
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"class": "curve", "role": "img", "aria-label": label}
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _own(name: str, value: str, key: str) -> str:
    """An attribute's value with the page's colours, and names that no other panel has."""
    if name == "id":
        return f"{key}-{value}"
    for color, its in _COLORS.items():
        value = value.replace(color, its)
    return value.replace("url(#", f"url(#{key}-") if name != _LINK else value.replace("#", f"#{key}-")


def draw(rows: Sequence[Mapping[str, float]], restarts: Sequence[int]) -> list[Drawn]:
    """The panels of what the rows hold; steps at which the run was started again are dotted lines."""
    drawn = []
    for curve in CURVES:
        series = {called: _points(rows, name) for name, called in curve.names.items()}
        series = {called: points for called, points in series.items() if points.shape[1]}
        if not series:
            continue
        summary = "; ".join(_summary(called, points) for called, points in series.items())
        svg = _svg(_figure(curve, series, restarts), curve.key, f"{curve.title} by step: {summary}.")
        drawn.append(Drawn(curve.title, f"{summary}.", svg))
    return drawn


def last(rows: Sequence[Mapping[str, float]], name: str) -> float:
    """The last value of a name; NaN where there is none."""
    return next((row[name] for row in reversed(rows) if name in row), math.nan)
