"""Samples of a page by guidance scale: a frame for each w, of which a slider shows one."""

import io
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from experiments.evaluation.by_scale import ByScale
from experiments.figures.image_grid import grid
from experiments.report.pictures import embedded

REACH = 1000
"""Units from the middle of a frame of points to its edge."""
_DOT = 22


class Frame(NamedTuple):
    """What is shown at one w: a picture with its size, or points."""

    scale: str
    picture: dict[str, Any] | None
    points: Markup | None


class Slider(NamedTuple):
    """A rule's frames in the order of w, the one that is shown first, and what they show."""

    title: str
    frames: list[Frame]
    start: int
    told: str


def _picture(samples: np.ndarray) -> dict[str, Any]:
    """The grid of pictures [K, height, width, channels], as the page holds it."""
    picture, stream = grid(samples / 127.5 - 1), io.BytesIO()
    picture.save(stream, "png", optimize=True)
    return embedded(stream.getvalue())


def _points(samples: np.ndarray, limit: float, label: str) -> Markup:
    """Points [K, n, 2] as an element of the page, a colour for each label."""
    places = np.round(samples / limit * REACH * np.asarray([1, -1])).astype(int)
    colors = (f"hsl({360 * place // len(places)} 70% 50%)" for place in range(len(places)))
    paths = "".join(
        f'<path stroke="{color}" d="{"".join(f"M{x} {y}h0" for x, y in row)}"/>'
        for color, row in zip(colors, places.tolist(), strict=True)
    )
    frame = f"{-REACH} {-REACH} {2 * REACH} {2 * REACH}"
    shared = f'viewBox="{frame}" role="img" fill="none" stroke-linecap="round" stroke-width="{_DOT}"'
    return Markup('<svg {} aria-label="{}">{}</svg>').format(Markup(shared), label, Markup(paths))


def _frames(own: ByScale) -> list[Frame]:
    if not own.has_points:
        return [Frame(f"{scale:g}", _picture(its), None) for scale, its in zip(own.scales, own.samples, strict=True)]
    limit = 1.05 * max(float(np.abs(own.samples).max()), 1e-6)
    return [
        Frame(f"{scale:g}", None, _points(its, limit, f"Samples at w = {scale:g}, {own.title}"))
        for scale, its in zip(own.scales, own.samples, strict=True)
    ]


def sliders_of(found: list[ByScale], labels: list[str]) -> list[Slider]:
    """The sliders of what a run keeps by guidance scale; they start at the scale nearest to 2."""
    sliders = []
    for own in found:
        ordered = own._replace(scales=np.sort(own.scales), samples=own.samples[np.argsort(own.scales, kind="stable")])
        start = int(np.argmin(np.abs(ordered.scales - 2)))
        names = ", ".join(labels[: own.samples.shape[1]])
        told = "Samples of every label" if own.has_points else f"One sample of each label, row by row: {names}"
        sliders.append(Slider(own.title, _frames(ordered), start, f"{told}; the noise is the same at every w."))
    return sliders
