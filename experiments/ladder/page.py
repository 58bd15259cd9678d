"""The page of the ladder, made of its rows alone: one table and one picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from experiments.ladder.climb import Found, Result
from experiments.ladder.figure import PATH, SIGMA, SOLVER
from experiments.ladder.rules import OWN, STOCHASTIC

SCALE = 2.0
"""The w of the table."""
_HEAD = """\
# The ladder of rules

What does a rule of guidance sample? Here {rules} rules are held against two laws that are known exactly: the tilted \
law p(x)^(1-w) p(x|y)^w, which guidance is often taken to sample, and the labelled law p(x|y).

The data is a mixture of nine Gaussians on a circle in a plane, three for each of three labels; the other D - 2 \
coordinates are normal, independent of plane and label. So both laws are the same in the plane whatever D, and plain \
guidance samples the same there; a rule that measures lengths or quantiles over a whole example does not. All fields \
are exact: what is off is the rule, or the solver's {steps} steps.

- **distance**: the energy distance of {samples} samples to exact draws, in the plane, in thousandths. Under the \
floor, {floor:.1f} at w = {scale:g} (the largest of sixteen sets of exact draws), two laws cannot be told apart.
- **coverage**: the sum over the nine components of the smaller of found and true share of the tilted law, 1 at best.
- **spread**: the standard deviation outside the plane, over the true one, for D = {largest}.
- **evaluations** of a field for one sample; a classifier or weaker field counts as one.

Rules have their papers' usual numbers, or those of `experiments/ladder/rules.py`; an interval is [0.375, 0.75), the \
negative label a neighbour, the weaker field that of a wider mixture. CFG++ has the l at which its middle step is \
plain guidance at w. `beta_scale` divides by the length of the difference, so that it moves by a length that neither \
it nor the dimension changes: far too much in a plane. The particles of `feynman_kac` are {samples}; at w of 3 and \
more few of them keep weight.

[The explorer](explorer.html) shows the same rules in 2-D: one page with sliders over w, time, rule, solver and sigma, \
to be opened in any browser (`--explorer FILE.html` makes it; it needs no network).
"""
_TAIL = """\
![Energy distance by rule, dimension and w]({picture})

Made by `{command}`: {count} points, {compilations} compilations, {cpu:.0f} CPU seconds, {seconds:.0f} s on \
{machine}, jax {jax}, {date}; other work had the machine at a load of {load:g} when it began. The rows of all solvers \
({solvers}), sigmas, paths ({paths}) and w ({scales}) are in the run's `ladder.json`.

`--rule FILE.py` adds a rule of your own, by a function of the type of `experiments.config.samplers.RULES`:
```python
from cfgjax import guidance


def rule(path, pair, scale):
    \"\"\"Guidance that grows with time.\"\"\"
    return guidance.extrapolate(pair, lambda t: 1 + (scale - 1) * t)
```
One that does not return like x, changes with the batch or is not finite is named in one line, and the ladder goes on. \
`--small` is a form of a minute, held against the figures in `experiments/ladder/small.json`: a rule whose figures \
move ends it with its name.
"""


def _number(value: float) -> str:
    return "diverges" if not np.isfinite(value) else f"{1000 * value:z.1f}"


def _line(found: Sequence[Found], dimensions: Sequence[int]) -> str:
    """A line of the table: one rule by one solver, at the table's w and path."""
    by_dimension = {row.dimension: row for row in found}
    first, last = found[0], by_dimension.get(dimensions[-1])
    cells = [first.rule, first.solver, str(first.evaluations)]
    for measure in ("to_tilted", "to_labelled"):
        rows = [by_dimension.get(dimension) for dimension in dimensions]
        cells += ["" if row is None else _number(getattr(row, measure)) for row in rows]
    cells.append(f"{first.coverage:.2f}" if np.isfinite(first.coverage) else "")
    cells.append("" if last is None or not np.isfinite(last.spread) else f"{last.spread:.3f}")
    return f"| {' | '.join(cells)} |"


def _is_in_table(row: Found) -> bool:
    by_noise = row.solver in STOCHASTIC and row.sigma == SIGMA
    return row.path == PATH and row.scale == SCALE and (row.solver in (SOLVER, OWN) or by_noise)


def table(rows: Sequence[Found]) -> str:
    """The table in Markdown, at w = 2 on the straight path: Heun, the rule itself, or the SDE of sigma 1."""
    dimensions = sorted({row.dimension for row in rows})
    laws = [f"{law}, D = {dimension}" for law in ("tilted", "labelled") for dimension in dimensions]
    lines = ["| rule | solver | evaluations | " + " | ".join(laws) + f" | coverage, D = {dimensions[0]} | spread |"]
    lines.append("|---|---|" + "---:|" * (1 + 2 * len(dimensions) + 2))
    groups: dict[tuple[str, str], list[Found]] = {}
    for row in filter(_is_in_table, rows):
        groups.setdefault((row.rule, row.solver), []).append(row)
    names = list(dict.fromkeys(rule for rule, _ in groups))
    in_order = sorted(groups, key=lambda group: names.index(group[0]))
    return "\n".join([*lines, *(_line(groups[group], dimensions) for group in in_order)]) + "\n"


def _near(rows: Sequence[Found], floor: float) -> str:
    """The rules and solvers that are under the floor of the tilted law in every dimension."""
    far = {(row.rule, row.solver) for row in rows if not row.to_tilted <= floor}
    near = [f"{row.rule} ({row.solver})" for row in rows if (row.rule, row.solver) not in far]
    return ", ".join(dict.fromkeys(near)) or "none"


def page(result: Result, command: str, machine: str, picture: str) -> str:
    """The page in Markdown, with a picture of that name beside it."""
    rows = result.rows
    head = _HEAD.format(
        rules=len({row.rule for row in rows}),
        steps=result.setting["num_steps"],
        samples=result.setting["num_samples"],
        floor=1000 * result.floors[SCALE],
        scale=SCALE,
        largest=max(row.dimension for row in rows),
    )
    of = {name: ", ".join(dict.fromkeys(str(getattr(row, name)) for row in rows)) for name in ("solver", "path")}
    tail = _TAIL.format(
        picture=picture,
        command=command,
        count=len(rows),
        compilations=result.compilations,
        cpu=result.cpu_seconds,
        seconds=result.seconds,
        machine=machine,
        **{name: result.setting[name] for name in ("jax", "date", "load")},
        solvers=of["solver"],
        paths=of["path"],
        scales=", ".join(f"{scale:g}" for scale in result.floors),
    )
    said = f"At w = {SCALE:g}, on the straight path, Euler-Maruyama at sigma = {SIGMA:g}:"
    near = _near([row for row in rows if _is_in_table(row)], result.floors[SCALE])
    told = f"Under the floor of the tilted law in every dimension: {near}."
    return f"{head}\n{said}\n\n{table(rows)}\n{told}\n\n{tail}"
