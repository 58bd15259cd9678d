"""Settings of older runs: under the names that they have now, and without those that there are since."""

from collections.abc import Mapping
from typing import Any

RENAMED = {
    "num_chunks": "num_microbatches",
    "most_not_finite": "max_consecutive_nonfinite",
    "data.num_labels": "data.num_classes",
    "network.time_ends": "network.time_range",
}
"""The dotted name of a setting in config.json and checkpoints of older runs -> its name."""

ADDED: dict[str, Any] = {
    "matmul_precision": "highest",
    "freeze": (),
    "kl_weight": 1e-3,
    "null_consistency": 0.0,
    "started_from.kind": None,
    "time_logit": (0.0, 1.0),
    "network.norm_scale": False,
    "network.feed_forward": "gelu",
    "network.qk_norm": False,
    "network.rotary": False,
    "network.bottleneck": 0,
    "network.in_context_tokens": 0,
    "network.in_context_start": 0,
    "network.internal_block": 0,
    "distillation.loss": None,
    "distillation.scales": (0.0, 4.0),
    "distillation.intervals": False,
    "distillation.equal_rate": 0.25,
    "distillation.kappa": 0.0,
    "distillation.residual_power": 0.0,
    "distillation.teacher_steps": 4,
    "distillation.trajectories": 65_536,
    "distillation.num_times": 16,
    "distillation.whole_rate": 0.4,
    "distillation.teacher": None,
}
"""The dotted name of a setting that older runs do not tell -> what it was in them, on CPUs."""


def with_new_names(settings: Any, prefix: str = "") -> Any:
    """The tree of settings, those that were renamed under their new names.

    >>> with_new_names({"num_chunks": 2, "data": {"num_labels": 10}})
    {'num_microbatches': 2, 'data': {'num_classes': 10}}
    """
    if not isinstance(settings, Mapping):
        return settings
    names = {name: RENAMED.get(f"{prefix}{name}", name).rpartition(".")[2] for name in settings}
    return {
        name if names[name] in settings else names[name]: with_new_names(value, f"{prefix}{name}.")
        for name, value in settings.items()
    }


def with_older_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by dotted names as an older run has them: those that were renamed under their older names.

    A mixture, which has a radius, called its number of classes as now. One that was added counts where it differs.

    >>> with_older_names({"num_microbatches": 2, "data.num_classes": 8, "data.radius": 2.0})
    {'num_chunks': 2, 'data.num_classes': 8, 'data.radius': 2.0}
    """
    older = {new: old for old, new in RENAMED.items() if old != "data.num_labels" or "data.radius" not in settings}
    return {older.get(name, name): value for name, value in settings.items() if ADDED.get(name, ...) != value}
