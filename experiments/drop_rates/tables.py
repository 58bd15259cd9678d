"""The tables: errors of both sides by drop rate, and the rates that are best."""

import jax.numpy as jnp

from cfgjax.analysis.residuals import balanced_drop_rate
from cfgjax.types import Array
from experiments.drop_rates.errors import Errors

Found = dict[tuple[float, float], Errors]
"""Errors of some seeds by drop rate and weight of null_consistency."""


def _spread(values: Array) -> str:
    return f"{float(jnp.mean(values)):.3g} ± {float(jnp.std(values)):.1g}"


def errors_table(found: Found, scales: tuple[float, ...]) -> str:
    """A line for each row: mean and standard deviation over seeds; in brackets w^2 E_y + (w - 1)^2 E_null."""
    lines = ["| null_consistency | drop rate | E_y | E_null | correlation |" + "".join(f" w = {w:g} |" for w in scales)]
    lines.append("|---" * (5 + len(scales)) + "|")
    for (rate, weight), row in found.items():
        cells = [f"{weight:g}", f"{rate:g}", _spread(row.labelled), _spread(row.null), _spread(row.correlation)]
        for place, scale in enumerate(scales):
            apart = float(jnp.mean(scale**2 * row.labelled + (scale - 1) ** 2 * row.null))
            cells.append(_spread(row.guided[:, place]) + (f" ({apart:.3g})" if scale not in (0, 1) else ""))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def error_ratio(found: Found) -> float:
    """The r of ``balanced_drop_rate``: the geometric mean of E_null p / (E_y (1 - p)) over rows without weight."""
    logs = [
        jnp.log(row.null * rate / (row.labelled * (1 - rate))) for (rate, weight), row in found.items() if not weight
    ]
    return float(jnp.exp(jnp.mean(jnp.stack(logs))))


def rates_table(found: Found, scales: tuple[float, ...]) -> str:
    """A line for each w: the rate of least error in the table, by weight, and those that are balanced."""
    weights = sorted({weight for _, weight in found})
    ratio = error_ratio(found) if 0.0 in weights else None
    heads = [*(f"least at null_consistency {weight:g}" for weight in weights), "balanced, r = 1"]
    heads += [] if ratio is None else [f"balanced, r = {ratio:.2g} as measured"]
    lines = ["| w | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for place, scale in enumerate(scales):
        means = {row: float(jnp.mean(each.guided[:, place])) for row, each in found.items()}
        cells = [f"{min((v, rate) for (rate, own), v in means.items() if own == weight)[1]:g}" for weight in weights]
        cells += [f"{float(balanced_drop_rate(scale, each)):.2f}" for each in (1.0, ratio) if each is not None]
        lines.append(f"| {scale:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
