"""Moving averages of any length, after training: from snapshots of a few that were kept beside it.

(A1) The average after t steps has the profile p(r) = (g + 1) r^g / t^(g+1) over the past 0 < r <= t, of exponent
     g > 0: it integrates to 1, and is the same at every t but for its scale. A decay that is constant has no such form.
(A2) Its relative standard deviation s, over t:  s^2 = (g + 1) / ((g + 2)^2 (g + 3)),  1/12 at g = 0. With
     y = s (g + 7/3) that is the cubic  y^3 - (1 + s^2 / 3) y + s (4/3 + 2 s^2 / 27) = 0,  and g belongs to the largest
     of its three real roots.
(A3) Update t = 1, 2, ... has the decay (1 - 1/t)^(g+1). The parameters after update s then weigh
     (s^(g+1) - (s-1)^(g+1)) / t^(g+1), the integral of (A1) over [s - 1, s]; those before the first update, nothing.
(A4) With <p, q> the integral of p q, |p|^2 = (g + 1)^2 / ((2g + 1) t); of p after t steps and q, with the exponent h,
     after s steps the cosine is
     <p, q> / (|p| |q|) = sqrt((2g + 1) (2h + 1)) / (g + h + 1) (min(t, s) / max(t, s))^(k + 1/2),
     k being the exponent of the later one: nothing overflows, however large the exponents.
(A5) The coefficients x of profiles p_i minimise |x_1 p_1 + x_2 p_2 + ... - p|^2 while x_1 + x_2 + ... = 1, so that a
     parameter that never moved is given back as it is. With z_i = x_i / a_i, a_i = |p| / |p_i|, C the cosines among the
     p_i and b those with p:  C z + m a = b  and  a . z = 1,  m being the multiplier.

Source: Karras et al., arXiv 2312.02696, section 3 and appendix C. The condition on the sum in (A5) is not theirs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import (
    is_traced,
    of_numpy,
    require_arrays,
    require_between,
    require_finite,
    require_scalar,
    short_repr,
)
from cfgjax.contracts import Contract, checked
from cfgjax.types import Array, EMAProfile, Number, Tree

LARGEST_STD = 12**-0.5
"""The plain mean's relative standard deviation, which no average of (A1) reaches."""

_END = object()


def _require_known(name: str, value: object) -> None:
    """Raises TypeError or ValueError for what is not one real number, known before a trace; Python's may be any."""
    if type(value) in (int, float):
        return
    require_scalar(name, value)
    if is_traced(value):
        raise TypeError(f"{name} must be a number that is not traced, got {short_repr(value)}")


def _require_relative_std(name: str, relative_std: float) -> None:
    """Raises TypeError or ValueError for what is not one known number in (0, 0.28867...)."""
    _require_known(name, relative_std)
    if not 0 < relative_std < LARGEST_STD:
        raise ValueError(f"{name} must be above 0 and under {LARGEST_STD:.5f}, got {relative_std}")


RelativeStd = Annotated[float, Contract(_require_relative_std)]
"""A relative standard deviation (A2), above 0 and under 0.28867... and not traced."""


@checked
def exponent_of(relative_std: RelativeStd) -> float:
    """The exponent g of the profile with a relative standard deviation (A2), above 0.

    Args:
        relative_std: the standard deviation of (A1) over its number of steps.

    >>> round(exponent_of(0.1), 3)
    6.937
    """
    slope, rest = 1 + relative_std**2 / 3, relative_std * (4 / 3 + 2 * relative_std**2 / 27)
    angle = math.acos(-1.5 * rest / slope * math.sqrt(3 / slope)) / 3
    return max(2 * math.sqrt(slope / 3) * math.cos(angle) / relative_std - 7 / 3, 0.0)


@checked
def power_function_decay(relative_std: RelativeStd) -> Callable[[Number], Array]:
    """The decay (A3) of the moving average, as a function of the number of steps done before.

    Args:
        relative_std: the standard deviation of (A1) over its number of steps.

    Returns:
        step -> decay [], for ``training.make_step``. At step 0 it is 0: the average becomes the parameters. In float32
        a decay near 1 is off by up to 3e-8, that is by 3e-8 t / (g + 1) of its distance from 1 at update t. A random
        walk of 10^6 steps was so reconstructed to 2e-4 to 7e-4 at 0.07 to 0.2 with 64 snapshots of two averages.

    Raises:
        TypeError, ValueError: at the call, a step that is not one number, or negative.

    >>> [round(float(power_function_decay(0.1)(step)), 4) for step in (0, 1, 9, 99)]
    [0.0, 0.0041, 0.4333, 0.9233]
    """
    power = exponent_of(relative_std) + 1

    def decay(step: Number) -> Array:
        require_between("step", step, 0, math.inf)
        return jnp.exp(power * jnp.log1p(-1 / (jnp.asarray(step) + 1)))

    return decay


def _numbers(name: str, coefficients: object) -> np.ndarray:
    """The coefficients in float64, once they are found to be a row of finite numbers."""
    require_finite(name, coefficients)
    given = np.asarray(of_numpy(coefficients), np.float64)
    if given.ndim != 1 or not given.size:
        raise ValueError(f"{name} must be a row of numbers, got the shape {given.shape}")
    return given


def _plain(name: str, profile: EMAProfile) -> EMAProfile:
    """The profile in Python scalars, checked."""
    if not isinstance(profile, list | tuple) or len(profile) != 2:
        raise TypeError(f"{name} must be an EMAProfile(step, relative_std), got {short_repr(profile)}")
    for part, value in zip(("step", "relative_std"), profile, strict=True):
        _require_known(f"{name}.{part}", value)
    step, relative_std = (np.asarray(value).item() for value in profile)
    if not 0 < step < math.inf:
        raise ValueError(f"{name}.step must be positive and finite, got {step}")
    _require_relative_std(f"{name}.relative_std", relative_std)
    return EMAProfile(step, relative_std)


def _kept(name: str, snapshots: Sequence[EMAProfile]) -> list[EMAProfile]:
    """The profiles in Python scalars: two or more that differ, those of one relative_std in time's order."""
    if not isinstance(snapshots, list | tuple):
        raise TypeError(f"{name} must be a list of EMAProfiles, got {type(snapshots).__name__}")
    kept = [_plain(f"{name}[{index}]", profile) for index, profile in enumerate(snapshots)]
    if len(kept) < 2:
        raise ValueError(f"{name} must be two or more, got {len(kept)}: one is no average but its own")
    profile, count = Counter(kept).most_common(1)[0]
    if count > 1:
        raise ValueError(
            f"{name} must differ, got step {profile.step} with relative_std {profile.relative_std} {count} times"
        )
    latest: dict[float, float] = {}
    for step, relative_std in kept:
        if step < latest.get(relative_std, 0):
            after = f"{latest[relative_std]} with relative_std {relative_std}"
            raise ValueError(f"steps of one relative_std must increase, got {step} after {after}")
        latest[relative_std] = step
    return kept


Coefficients = Annotated[np.ndarray, Contract(_numbers)]
"""A row of finite numbers, [n]."""
Profile = Annotated[EMAProfile, Contract(_plain)]
"""A positive step and a relative standard deviation of (A2)."""
Snapshots = Annotated[Sequence[EMAProfile], Contract(_kept)]
"""The profiles of two or more averages that differ, the steps of each relative_std in increasing order."""


@checked
def weights(snapshots: Snapshots, wanted: Profile) -> np.ndarray:
    """The coefficients of snapshots whose sum is nearest to a wanted average (A5), [n] in float64; they sum to 1.

    How near that is, ``profile_error`` tells.

    Args:
        snapshots: the profiles of the averages that were kept, in any order in which those of each relative_std follow
            one another in time. Only ratios of steps matter: they may be counted in examples.
        wanted: the profile of the average wanted; its step is at most the last snapshot's. Between two
            snapshots its profile breaks off where none of theirs does: a step at which one was kept is followed better.

    Raises:
        ValueError: a wanted step beyond the snapshots.

    >>> kept = [EMAProfile(step, relative_std) for step in (500, 1000) for relative_std in (0.05, 0.1)]
    >>> [round(float(weight), 3) + 0.0 for weight in weights(kept, EMAProfile(1000, 0.1))]
    [0.0, 0.0, 0.0, 1.0]
    """
    cosines, to_wanted, scale = _system(snapshots, wanted)
    system = np.block([[cosines, scale[:, None]], [scale[None], np.zeros((1, 1))]])
    return scale * np.linalg.lstsq(system, np.append(to_wanted, 1.0))[0][:-1]


@checked
def profile_error(snapshots: Snapshots, wanted: Profile, coefficients: Coefficients) -> float:
    """The distance |x_1 p_1 + x_2 p_2 + ... - p| / |p| of a sum of snapshots from the wanted average's profile (A4).

    It is the relative error where the parameters are noise about 0, independent from step to step; those that move
    slowly come out better. Rounding leaves about 1e-8 of an error that is 0.

    Args:
        snapshots: the profiles of the averages that were kept.
        wanted: those of the average wanted.
        coefficients: [n], as of ``weights``.

    Raises:
        ValueError: a wanted step beyond the snapshots; coefficients that are not one for each snapshot.
    """
    cosines, to_wanted, scale = _system(snapshots, wanted)
    if coefficients.shape != scale.shape:
        raise ValueError(f"coefficients must be one for each snapshot, {scale.shape}, got {coefficients.shape}")
    scaled = coefficients / scale
    return math.sqrt(max(float(scaled @ cosines @ scaled - 2 * scaled @ to_wanted + 1), 0.0))


def _require_trees(name: str, snapshots: object) -> None:
    if not isinstance(snapshots, Iterable) or isinstance(snapshots, str):
        raise TypeError(f"{name} must be trees, one by one, got {type(snapshots).__name__}")


@checked
def reconstruct(snapshots: Annotated[Iterable[Tree], Contract(_require_trees)], coefficients: Coefficients) -> Tree:
    """The sum of trees, each times its coefficient: summed in float64 on the host, given in float32.

    One tree is in memory at a time beside the sum, if the iterable reads them one by one and keeps none.

    Args:
        snapshots: the averages that were kept, in the order of ``weights``' snapshots: trees of the same shapes.
        coefficients: [n], as of ``weights``.

    Raises:
        TypeError: a tree with a leaf that is no array.
        ValueError: fewer trees than coefficients, or more; a tree of another structure or other shapes than the first.

    >>> reconstruct(iter([{"a": jnp.ones(2)}, {"a": jnp.arange(2.0)}]), [2.0, -1.0])
    {'a': Array([2., 1.], dtype=float32)}
    """
    trees, total = iter(snapshots), None
    for coefficient in coefficients:  # no name holds a tree while the next one is read
        total = _plus(total, _another(trees, len(coefficients)), coefficient)
    if next(trees, _END) is not _END:
        raise ValueError(f"snapshots must be as many as coefficients, got more than {len(coefficients)}")
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), total)


def _another(trees: Iterator[Tree], number: int) -> Tree:
    tree = next(trees, _END)
    if tree is _END:
        raise ValueError(f"snapshots must be as many as coefficients, got fewer than {number}")
    return tree


def _plus(total: Tree, tree: Tree, coefficient: float) -> Tree:
    """The total of float64 with coefficient times the tree added in place; a new one where there is none yet."""
    require_arrays("snapshots", tree)
    if total is None:
        total = jax.tree.map(lambda leaf: np.zeros(np.shape(leaf)), tree)
    _require_same_shapes(tree, total)
    for added, leaf in zip(jax.tree.leaves(total), jax.tree.leaves(tree), strict=True):
        np.add(added, coefficient * np.asarray(leaf, np.float64), out=added)
    return total


def _require_same_shapes(tree: Tree, first: Tree) -> None:
    given, wanted = _shapes(tree), _shapes(first)
    for name in [*wanted, *given]:
        if given.get(name) != wanted.get(name):
            found, expected = given.get(name, "no such leaf"), wanted.get(name, "no such leaf")
            raise ValueError(
                f"snapshots must have the first one's leaves and shapes, at {name} {expected}, got {found}"
            )


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path): np.shape(leaf) for path, leaf in leaves}


def _system(snapshots: Sequence[EMAProfile], wanted: EMAProfile) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(A5)'s C [n, n], b [n] and a [n]."""
    last = max(profile.step for profile in snapshots)
    if not wanted.step <= last:
        raise ValueError(f"wanted must have a step up to the last snapshot's, {last}, got {wanted.step}")
    steps = np.array([profile.step for profile in snapshots], np.float64)
    exponents = np.array([exponent_of(profile.relative_std) for profile in snapshots])
    exponent = exponent_of(wanted.relative_std)
    cosines = _cosine(steps[:, None], exponents[:, None], steps[None], exponents[None])
    to_wanted = _cosine(steps, exponents, wanted.step, exponent)
    return cosines, to_wanted, np.sqrt(steps / wanted.step) * _size(exponent) / _size(exponents)


def _size(exponent: np.ndarray | float) -> np.ndarray | float:
    """|p| after one step (A4)."""
    return (exponent + 1) / np.sqrt(2 * exponent + 1)


def _cosine(
    step: np.ndarray, exponent: np.ndarray, other_step: np.ndarray | float, other: np.ndarray | float
) -> np.ndarray:
    """The cosine of two profiles (A4)."""
    ratio = np.minimum(step, other_step) / np.maximum(step, other_step)
    later = np.where(step >= other_step, exponent, other)
    return np.sqrt(2 * exponent + 1) * np.sqrt(2 * other + 1) / (exponent + other + 1) * ratio ** (later + 0.5)
