"""Checks of guidance scales, with the lines (K1) and (K2) of ``cfgjax.checks``."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from cfgjax.checks.kinds import require_function
from cfgjax.checks.numbers import require_between, require_number
from cfgjax.types import Interval, Policy, Scale


def _places(function: Callable[..., object]) -> list[inspect.Parameter]:
    """The arguments that can be given by their place."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [each for each in inspect.signature(function).parameters.values() if each.kind in kinds]


def takes_label(schedule: Callable[..., object]) -> bool:
    """Whether a schedule is a function of (t, y): it needs two arguments, or calls its second y.

    Raises:
        TypeError: a function that needs more.
    """
    try:
        places = _places(schedule)
    except ValueError:  # a builtin tells none
        return False
    needed = [each.name for each in places if each.default is inspect.Parameter.empty]
    if len(needed) > 2:
        raise TypeError(
            f"scale must be a function of t or of (t, y), got one of ({', '.join(needed)}): guidance.policy makes a "
            "scale of a function of (x, t, y, null, labelled)"
        )
    return len(places) > 1 and (places[1].default is inspect.Parameter.empty or places[1].name == "y")


def takes_condition(log_classifier: Callable[..., object]) -> bool:
    """Whether a classifier is a function of (x, t, y), one condition's log-likelihood: it needs three arguments."""
    try:
        places = _places(log_classifier)
    except (TypeError, ValueError):
        return False
    return sum(each.default is inspect.Parameter.empty or each.name == "y" for each in places) == 3


def require_scale(name: str, scale: Scale) -> None:
    """Raises TypeError or ValueError for what is neither a function nor one number, finite where concrete."""
    if isinstance(scale, Interval):
        require_scale(name, scale.scale)
    elif isinstance(scale, Policy):
        require_function("scale_of", scale.scale_of)
    elif callable(scale):
        takes_label(scale)
    else:
        require_number(name, scale)


def require_schedule(name: str, schedule: object, low: float, high: float) -> None:
    """Raises TypeError or ValueError for neither a function of t nor one number, in [low, high] where concrete."""
    if not callable(schedule):
        require_between(name, schedule, low, high)
    elif takes_label(schedule):
        raise TypeError(f"{name} must be a number or a function of t, got a function of (t, y)")
