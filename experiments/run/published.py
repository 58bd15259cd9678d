"""How published weights were trained, by their kind."""

from typing import Any, Literal

KindName = Literal["sit", "repa", "dit", "diffusers_dit", "lightningdit", "jit"]
_OF_STEPS = {"path": "ddpm", "objective": "noise"}
TRAINED: dict[str, dict[str, Any]] = {
    "sit": {},
    "repa": {},
    "dit": _OF_STEPS,
    "diffusers_dit": _OF_STEPS,
    "lightningdit": {"time_density": "logit_normal"},
    "jit": {"objective": "data", "time_density": "logit_normal", "time_logit": (-0.8, 0.8)},
}
"""Settings of an experiment, as far as they are not the defaults: SiT's way."""

TELL_HEADS = "lightningdit", "jit"
"""Kinds whose files tell the number of heads."""
