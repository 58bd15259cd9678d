"""Fields of several conditions against the oracle: of all of them, of some, and of none.

Errors are those of (V1) of ``fields``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain, combinations, product

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.conditions import Known
from cfgjax.contracts import Positive, checked
from cfgjax.mixtures import JointMixture
from cfgjax.types import Array, Condition, GaussianPath, LabelledField
from cfgjax.verify.field_bugs import NAMES, label_average, mistakes_with, shifted_labels
from cfgjax.verify.fields import ROWS, Rows, called, row_check, rows_of, start_check
from cfgjax.verify.reference import JointOracle, Seed, View, Views, joint_states, skewed_joint_mixture
from cfgjax.verify.report import Check, Report, collected

_LABEL, _WHOLE = "label", 3
"""The label's name, and how many conditions there may be for every subset of them to be a row."""


@checked
def conditional_field(
    field: LabelledField,
    path: GaussianPath,
    mixture: JointOracle | None = None,
    view: View = "field",
    tolerance: Positive = 3e-3,
    seed: Seed = 0,
) -> Report:
    """The report on a field (x [D], t [], y) -> [D] that claims to be a view of a joint mixture on the path.

    It is always called with all of y = {"label": [] in 0..K, "vector": Known([k], [])}, like the mixture's ``null``.
    Checked: the values for both conditions, for each alone and for the null, and that they are finite at t = 0; of a
    mixture of two vectors those for every subset of the conditions, of more for all, all but one, one, and none.
    Causes told apart: those of ``field`` (the sign, 1 - t for t, another view, a factor, a conversion, labels shifted);
    conditions ignored; a vector negated, reversed or taken for zeros; a vector of zeros, label 0 or K-1 in the place of
    the null; the labels' average.

    A pass shows 19 times from 0.05 to 0.95 and eight states at each for every row, to the tolerance; not states or
    vectors that are rare. A network that has been trained with all conditions dropped together has not learned the rows
    of some alone.

    Args:
        field: the claimed view, for ONE example.
        path: the path of the claim.
        mixture: the data of the claim; None for one of three labels and two measurements in 2-D, in no way symmetric.
        view: what the field claims to be.
        tolerance: [], the relative error allowed at any time (V1): rounding for a formula, more for a network.
        seed: chooses the states and vectors.
    """
    limits = (
        f"errors under {float(tolerance):g}, t outside [0.05, 0.95] but that values are finite at 0, "
        "or rare states and vectors"
    )
    checks = _checks(field, path, mixture or skewed_joint_mixture(), view, float(tolerance), seed)
    return collected(f"verify.conditional_field ({NAMES[view]})", checks, limits)


def _subsets(mixture: JointMixture) -> list[tuple[str, ...]]:
    """What is known in each group of rows, all first and none last."""
    names = (_LABEL, *mixture.sizes)
    counts = range(len(names) + 1) if len(names) <= _WHOLE else (0, 1, len(names) - 1, len(names))
    return list(chain.from_iterable(combinations(names, count) for count in reversed(counts)))


def _inputs(
    mixture: JointMixture, path: GaussianPath, subsets: list[tuple[str, ...]], seed: int
) -> tuple[Array, Array, Condition]:
    """States, times and conditions of every group of rows, and of those at t = 0 after them."""
    null = mixture.num_classes
    times, ys, labels = rows_of(null, len(subsets))

    def is_known(name: str) -> np.ndarray:
        return np.concatenate([np.repeat([name in subset for subset in subsets], ROWS), np.full(len(labels), True)])

    t = jnp.asarray(times, jnp.result_type(float))
    x, vectors = joint_states(mixture, path, np.asarray(t), seed)
    label = np.concatenate([*[ys] * len(subsets), labels])
    y: Condition = {_LABEL: jnp.asarray(np.where(is_known(_LABEL), label, null))}
    for name, values in vectors.items():
        own = is_known(name)
        y[name] = Known(jnp.where(np.expand_dims(own, -1), values, 0), jnp.asarray(own))
    return x, t, y


def _checks(
    field: LabelledField, path: GaussianPath, mixture: JointMixture, view: View, tolerance: float, seed: int
) -> Iterator[Check]:
    views, subsets = Views(mixture, path), _subsets(mixture)
    groups, start = called(field, *_inputs(mixture, path, subsets, seed))
    for subset, rows in zip(subsets, groups, strict=True):
        name = f"values for {' and '.join(subset) or 'the null'}"
        mistakes = partial(_mistakes, views, mixture, path, view, rows, subset)
        yield row_check(name, rows, views.values(view, *rows[:3]), mistakes, tolerance)
    yield start_check(start)


def _mistakes(
    views: Views, mixture: JointMixture, path: GaussianPath, view: View, rows: Rows, subset: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Mistakes of any field, and those of the conditions that are known and of those that are not."""
    x, t, y, _ = rows
    taken = _ignored(mixture, y, subset) | _changed(mixture, y, subset) | _in_the_place_of_nulls(mixture, y, subset)
    known = mistakes_with(views, path, view, x, t, y, {words: y | other for words, other in taken.items()})
    if _LABEL in subset:
        return known
    labels = [jnp.full_like(y[_LABEL], label) for label in range(mixture.num_classes)]
    by_label = [views.values(view, x, t, y | {_LABEL: label}) for label in labels]
    zero = {} if subset else {"the null gives zero": np.zeros_like(by_label[0])}
    return known | label_average(mixture.mixture, by_label) | zero


def _ignored(mixture: JointMixture, y: Condition, subset: tuple[str, ...]) -> dict[str, Condition]:
    """By the mistake's words, the conditions that are taken for those of the rows, where some are ignored."""
    nulls = jax.tree.map(lambda null, own: jnp.broadcast_to(null, own.shape), mixture.null, y)
    found = {}
    for names in chain.from_iterable(combinations(subset, count) for count in range(1, len(subset) + 1)):
        verb = "is ignored" if len(names) == 1 else "are ignored"
        is_all = len(names) == len(subset) > 1
        words = "it is the null's value: conditions are ignored" if is_all else f"the {' and the '.join(names)} {verb}"
        found[words] = {name: nulls[name] for name in names}
    return found


def _changed(mixture: JointMixture, y: Condition, subset: tuple[str, ...]) -> dict[str, Condition]:
    """By the mistake's words, what is taken for one of the rows' conditions."""
    found = {}
    for name in subset:
        if name == _LABEL:
            others = shifted_labels(y[name], mixture.num_classes)
        else:
            value, is_known = y[name]
            others = {
                f"the {name} is ignored: zeros are taken for it": Known(jnp.zeros_like(value), is_known),
                f"the {name}'s sign is wrong": Known(-value, is_known),
                f"the {name}'s coordinates are reversed": Known(value[:, ::-1], is_known),
            }
        found |= {words: {name: other} for words, other in others.items()}
    return found


def _in_the_place_of_nulls(mixture: JointMixture, y: Condition, subset: tuple[str, ...]) -> dict[str, Condition]:
    """By the mistakes' words, what is taken for the conditions that are not known, for one of them or more."""
    null, options = mixture.num_classes, []
    for name in y:
        if name in subset:
            continue
        if name == _LABEL:
            wrong = {
                f"the null of the label is label {row}, not K = {null}": jnp.full_like(y[name], row)
                for row in (0, null - 1)
            }
        else:
            value, is_known = y[name]
            wrong = {f"the null of the {name} is a vector of zeros": Known(value, jnp.ones_like(is_known))}
        options.append([None, *((words, {name: other}) for words, other in wrong.items())])
    found = {}
    for chosen in product(*options):
        made = [each for each in chosen if each is not None]
        if made:
            found[", and ".join(words for words, _ in made)] = {
                name: value for _, other in made for name, value in other.items()
            }
    return found
