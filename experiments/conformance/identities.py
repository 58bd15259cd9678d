"""Identities of a guider of batches: continuity at w = 1 and 0, the space, the batch, memory, what it writes into.

On states and both sides of the oracle, 24 rows at each of five times. A slope is |guided(w + h) - guided(w)| / h over
the larger one of |u_y - u_null| and |guided(w + 1) - guided(w)|: 1 for plain guidance, 1/h times a jump's share for a
rule that has one.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from cfgjax.mixtures import LabelledMixture
from cfgjax.verify import Check
from cfgjax.verify.reference import Views, skewed_mixture, states
from cfgjax.verify.report import at_most, relative_error
from experiments.conformance.spaces import SPACES, STRAIGHT

Guide = Callable[[tuple[np.ndarray, np.ndarray], float, np.ndarray, float], np.ndarray]
_TIMES, _ROWS, _SCALE, _STEP = (0.1, 0.3, 0.5, 0.7, 0.9), 24, 3.0, 1e-3
_OTHERS = ("velocity", "denoised", "noise")
_SLOPE, _SPACE, _BATCH, _AGAIN = 10.0, 1e-3, 1e-5, 1e-6
CONTINUOUS_AT_ONE, CONTINUOUS_AT_ZERO = "slope at w = 1", "slope at w = 0"
ANY_SPACE, ALONE = "in another space", "a row alone and in its batch"
AGAIN, IN_PLACE = "called again", "inputs changed in place"


class _At(NamedTuple):
    """A guider at one time: states [n, D], the field for the labels and for the null label."""

    guide: Guide
    space: str
    x: np.ndarray
    t: float
    labelled: np.ndarray
    null: np.ndarray

    def run(self, scale: float, space: str = "", rows: slice = slice(None)) -> tuple[np.ndarray, float]:
        """The guided field, and the largest change of what was given."""
        view, back = SPACES[space or self.space]
        x = self.x[rows]
        given = [x.copy(), *(np.array(view(side, self.x, self.t)[rows]) for side in (self.labelled, self.null))]
        before = [each.copy() for each in given]
        found = back(self.guide((given[1], given[2]), scale, given[0], self.t), x, self.t)
        return found, max(float(np.abs(a - b).max()) for a, b in zip(given, before, strict=True))

    def slope(self, scale: float) -> float:
        """The larger one of both sides' slopes."""
        here = self.run(scale)[0]
        size = max(np.linalg.norm(self.labelled - self.null), np.linalg.norm(self.run(scale + 1)[0] - here))
        return max(float(np.linalg.norm(self.run(scale + h)[0] - here) / (_STEP * size)) for h in (-_STEP, _STEP))

    def measured(self) -> dict[str, float]:
        """Every identity's error."""
        whole, changed = self.run(_SCALE)
        alone = np.concatenate([self.run(_SCALE, rows=slice(i, i + 1))[0] for i in range(len(self.x))])
        return {
            CONTINUOUS_AT_ONE: self.slope(1.0),
            CONTINUOUS_AT_ZERO: self.slope(0.0),
            ANY_SPACE: max(relative_error(self.run(_SCALE, other)[0], whole) for other in _OTHERS),
            ALONE: relative_error(alone, whole),
            AGAIN: relative_error(self.run(_SCALE)[0], whole),
            IN_PLACE: changed,
        }


_ALLOWED = {
    CONTINUOUS_AT_ONE: (_SLOPE, "a jump at w = 1: w and w + 0.001 are two rules"),
    CONTINUOUS_AT_ZERO: (_SLOPE, "a jump at w = 0: w and w + 0.001 are two rules"),
    ANY_SPACE: (_SPACE, "it acts in one space: of another prediction it is another rule"),
    ALONE: (_BATCH, "a row depends on the rest of its batch"),
    AGAIN: (_AGAIN, "it remembers: a second call gives other values"),
    IN_PLACE: (0.0, "it writes into what it is given"),
}


def checks(guide: Guide, space: str, mixture: LabelledMixture | None = None) -> Iterator[Check]:
    """A check of each identity, by the largest error over the times.

    Args:
        guide: of both sides as a model of the space predicts them, the scale w, x [n, D] and t it makes [n, D].
        space: what the model predicts.
        mixture: the oracle; None for one of three labels in 2-D.
    """
    mixture = mixture or skewed_mixture()
    views, num_classes = Views(mixture, STRAIGHT), mixture.num_classes
    y, null = jnp.arange(_ROWS) % num_classes, jnp.full(_ROWS, num_classes)
    found: list[dict[str, float]] = []
    for t in _TIMES:
        times = np.full(_ROWS, t, np.float32)
        start = states(mixture, STRAIGHT, times, 0)
        sides = (np.asarray(views.values("field", start, jnp.asarray(times), label), np.float32) for label in (y, null))
        found.append(_At(guide, space, np.asarray(start), t, *sides).measured())
    for name, (allowed, cause) in _ALLOWED.items():
        errors = [each[name] for each in found]
        worst = max(errors) if np.all(np.isfinite(errors)) else np.inf
        yield at_most(name, worst, allowed, lambda cause=cause: cause)
