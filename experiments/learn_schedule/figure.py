"""The picture of the comparison of learned scales."""

from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from cfgjax.types import Tree
from experiments.learn_schedule.rules import PREFERENCES, REWARDS
from experiments.learn_schedule.scales import network
from experiments.learn_schedule.table import Row, error_of

_GAP = 1.0


def draw(rows: Sequence[Row], params: Mapping[str, Tree]) -> Figure:
    """The fitted scales in time, of each label; those of the losses; and every rule's divergence."""
    figure = Figure(figsize=(13, 4.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.3))
    for y, knots in enumerate(np.asarray(params["schedule"])):
        left.plot(np.linspace(0, 1, len(knots)), knots, label=f"{y}", color=f"C{y}")
    left.axhline(float(params["fitted constant"][0]), color="gray", linestyle=":", label="constant")
    left.set(xlabel="t (0 noise, 1 data)", ylabel="w(t, y)", title="fitted to the tilted law, by label")
    left.legend(ncols=2, fontsize="small")
    for index, strength in enumerate(REWARDS):
        mean = np.mean(1 + np.maximum(np.asarray(params[f"learn-to-guide {strength:g}"]), 0), axis=0)
        words = f"learn-to-guide, reward {strength:g}"
        middle.plot(np.linspace(0, 1, len(mean)), mean, label=words, color=f"C{index}")
    times = np.linspace(0, 1, 41, dtype=np.float32)
    for index, preference in enumerate(PREFERENCES):
        values = [float(network(params["annealed"], t, jnp.float32(_GAP), preference)) for t in times]
        words = f"annealed {preference:g}, gap {_GAP:g}"
        middle.plot(times, values, linestyle="--", label=words, color=f"C{index + 5}")
    middle.set(xlabel="t", ylabel="w", title="by losses of their own, mean over labels")
    middle.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2)
    finite = [row for row in rows if np.isfinite(row.mean)]
    places = np.arange(len(finite))[::-1]
    right.barh(places, [row.mean for row in finite], xerr=[error_of(row.by_seed) for row in finite], color="C0")
    right.set_yticks(places, [row.name for row in finite], fontsize="small")
    right.set(xlabel="nats", xscale="log", title="KL from the tilted law")
    return figure
