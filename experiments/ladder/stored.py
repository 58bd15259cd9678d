"""The stored figures of the small form, and which rules' figures moved away from them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.ladder.climb import Found, Result

FILE = Path(__file__).with_name("small.json")
MEASURES = ("to_tilted", "to_labelled", "coverage", "spread")
RELATIVE, FLOORS, SHARE = 0.05, 0.1, 0.015
"""How much a figure may move: a part of itself; a distance by a part of its floor; a share or a spread by itself."""

Figures = dict[str, dict[str, list[float | None]]]
"""rule -> a point of the sweep -> the figures of MEASURES, None where infinite."""


def _place(row: Found) -> str:
    sigma = "" if row.sigma is None else f", sigma = {row.sigma:g}"
    return f"D = {row.dimension}, {row.path}, {row.solver}, w = {row.scale:g}{sigma}"


def figures_of(rows: Sequence[Found]) -> Figures:
    """The figures of rows, rounded."""
    found: Figures = {}
    for row in rows:
        values = [getattr(row, name) for name in MEASURES]
        rounded = [round(value, 5) if np.isfinite(value) else None for value in values]
        found.setdefault(row.rule, {})[_place(row)] = rounded
    return found


def store(result: Result) -> None:
    """Writes the figures, a line for each point."""
    rules = []
    for rule, points in figures_of(result.rows).items():
        lines = ",\n".join(f"  {json.dumps(place)}: {json.dumps(values)}" for place, values in points.items())
        rules.append(f" {json.dumps(rule)}: {{\n{lines}\n }}")
    FILE.write_text("{\n" + ",\n".join(rules) + "\n}\n", encoding="utf-8")


def stored() -> Figures:
    """The stored figures."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def _allowed(measure: str, value: float, floor: float) -> float:
    return RELATIVE * abs(value) + FLOORS * floor if measure.startswith("to_") else SHARE


def _moves(found: Sequence[Any], wanted: Sequence[Any], floor: float) -> Iterator[str]:
    for measure, value, old in zip(MEASURES, found, wanted, strict=True):
        is_alike = value == old or (
            value is not None and old is not None and abs(value - old) <= _allowed(measure, old, floor)
        )
        if not is_alike:
            yield f"{measure} is {value}, was {old}"


def moved(result: Result, wanted: Figures, loose: Collection[str] = ()) -> list[str]:
    """A line for each rule whose figures moved, or that has none stored.

    Args:
        result: of the small form.
        wanted: the stored figures.
        loose: rules whose figures are held to ten times the tolerance: a population is resampled by weights, where a
            rounding error may exchange one particle for another.
    """
    floor, found, lines = max(result.floors.values()), figures_of(result.rows), []
    for rule, points in found.items():
        if rule not in wanted:
            lines.append(f"{rule} has no stored figures")
            continue
        own = 10 * floor if rule in loose else floor
        changes = [
            f"{change} at {place}"
            for place, values in points.items()
            for change in _moves(values, wanted[rule].get(place, [None] * len(MEASURES)), own)
        ]
        if changes:
            lines.append(f"{rule} moved: {changes[0]}" + (f", and {len(changes) - 1} more" if changes[1:] else ""))
    return lines + [f"{rule} is stored, and was not laddered" for rule in wanted if rule not in found]
