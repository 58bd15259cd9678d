"""Calls of other libraries in the form that ``cfgjax.verify`` asks for: batches of NumPy arrays, cfgjax's time.

    Guide  (sides, w, x [n, D], t) -> [n, D]              sides: labelled and null, as a model predicts them
    Draw   (velocity, x [n, D], n_steps, seed) -> [n, D]  velocity: (x [n, D], t) -> [n, D], from t = 0, noise, to 1

A guider and a sampler of a batch each serve every check. NumPy refuses a traced array, upon which verify calls one
example at a time, outside of jit; so what is made of these calls is not traced, and may be written in any framework.
A state on another Gaussian path, alpha z + sigma e, is brought to the straight one exactly: it is x / (alpha + sigma)
at t = alpha / (alpha + sigma).
"""

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import verify
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Array, Field, LabelledField, Number
from cfgjax.verify import Check
from cfgjax.verify.reference import View, skewed_mixture
from experiments.conformance import identities
from experiments.conformance.names import CALL
from experiments.conformance.records import Record, prefixed
from experiments.conformance.spaces import SPACES, STRAIGHT

Velocity = Callable[[np.ndarray, float], np.ndarray]
Guide = Callable[[tuple[np.ndarray, np.ndarray], float, np.ndarray, float], np.ndarray]
Draw = Callable[[Velocity, np.ndarray, int, int], np.ndarray]
_SEEDS = 2**31 - 1
LAW_BIAS, LAW_SAMPLES = 0.1, 2048
"""What moments may be wrong by for finite steps, and samples in each of verify's sixteen calls."""
LAW_STEPS = (64, 256)
"""Numbers of steps: at both, all samplers of the right law are within what is allowed."""


def rule_of(guide: Guide, space: str) -> Callable[[LabelledField, Any, Any], LabelledField]:
    """The rule (field, scale, null_label) -> field of ONE example that a guider of batches makes."""
    view, back = SPACES[space]

    def rule(field: LabelledField, scale: Number, null_label: Number) -> LabelledField:
        def guided(x: Array, t: Number, y: Array) -> Any:
            rows, time = np.asarray(x)[None], float(t)
            labelled, null = (np.asarray(field(rows[0], jnp.asarray(time), label))[None] for label in (y, null_label))
            sides = view(labelled, rows, time), view(null, rows, time)
            return back(guide(sides, float(scale), rows, time), rows, time)[0]

        return guided

    return rule


def solver_of(draw: Draw) -> Callable[[Field], Callable[[Array, Array, Array], Any]]:
    """The solver field -> ((key, x, ts) -> x) of ONE example; the library takes its own grid of as many steps."""

    def make(field: Field) -> Callable[[Array, Array, Array], Any]:
        def velocity(x: np.ndarray, t: float) -> np.ndarray:
            return np.stack([np.asarray(field(row, jnp.asarray(t))) for row in x])

        def run(key: Array, x: Array, ts: Array) -> Any:
            return draw(velocity, np.asarray(x)[None], len(ts) - 1, seed_of(key))[0]

        return run

    return make


def package_folders(name: str) -> list[str]:
    """Where a package's modules lie, without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {name!r}")
    return list(spec.submodule_search_locations)


def seed_of(key: Array) -> int:
    """A seed of 31 bits."""
    return int(jax.random.randint(key, (), 0, _SEEDS))


def sampler_of(draw: Draw, mixture: LabelledMixture, n_steps: int) -> Callable[[Array, Array], Array]:
    """The sampler (key, y [n]) -> [n, D] at w = 1, a whole batch in one call."""
    call = jax.jit(jax.vmap(mixture.vector_field(STRAIGHT), in_axes=(0, None, 0)))

    def sample(key: Array, y: Array) -> Any:
        start, noise = jax.random.split(key)

        def velocity(x: np.ndarray, t: float) -> np.ndarray:
            return np.asarray(call(np.asarray(x, np.float32), float(t), y))

        x = np.array(jax.random.normal(start, (len(y), mixture.means.shape[-1])))
        return draw(velocity, x, n_steps, seed_of(noise))

    return sample


def moved(velocity: Velocity, x: np.ndarray, t: float, t_next: float, steps: int = 32) -> np.ndarray:
    """The state brought along the flow by the classical rule of order 4.

    For a library whose first time is not noise alone, or its last one not data: what is left out there is not its
    solver's error.
    """
    times = np.linspace(t, t_next, steps + 1)
    for a, b in pairwise(times):
        h, first = b - a, velocity(x, a)
        second = velocity(x + h / 2 * first, a + h / 2)
        third = velocity(x + h / 2 * second, a + h / 2)
        x = x + h / 6 * (first + 2 * (second + third) + velocity(x + h * third, b))
    return np.asarray(x, np.float32)


def guider(
    call: str,
    guide: Guide,
    space: str = "velocity",
    is_plain: bool = True,
    mixture: LabelledMixture | None = None,
    fails: tuple[str, ...] = (),
    remark: str = "",
) -> Record:
    """The record of a guider: classifier-free guidance, or at w = 1 where it is meant to differ, and the identities."""

    def checks() -> Iterator[Check]:
        ask = verify.guidance if is_plain else verify.rule
        found = [
            check
            for check in ask(rule_of(guide, space), mixture=mixture).checks
            if not check.name.startswith(identities.CONTINUOUS_AT_ONE)
        ]
        yield from found
        if not any(check.name == CALL for check in found):
            yield from identities.checks(guide, space, mixture=mixture)

    return Record(call, "guider", checks, fails, remark)


def solver(call: str, draw: Draw, order: float | None = None, fails: tuple[str, ...] = (), remark: str = "") -> Record:
    """The record of an ODE solver of a claimed order, None for one that chooses its own steps."""
    return Record(call, "solver", lambda: verify.solver(solver_of(draw), order).checks, fails, remark)


def law_of(
    sampler_of: Callable[[Any, LabelledMixture, int], Callable[[Array, Array], Array]],
    call: str,
    draw: Any,
    steps: tuple[int, ...] = LAW_STEPS,
    fails: tuple[str, ...] = (),
    remark: str = "",
) -> Record:
    """The record of a sampler by its samples' law, at several numbers of steps; ``sampler_of`` makes it of a call."""

    def checks() -> Iterator[Check]:
        mixture = skewed_mixture()
        for n in steps:
            sample = sampler_of(draw, mixture, n)
            yield from prefixed(f"{n} steps, ", verify.samples(sample, mixture, LAW_BIAS, LAW_SAMPLES).checks)

    return Record(call, "law", checks, fails, remark)


law = partial(law_of, sampler_of)
"""(call, draw, steps, fails, remark) -> the record of a sampler by its samples' law."""


def conversion(call: str, convert: Callable[[Any, Any, Any], Any], view: View, remark: str = "") -> Record:
    """The record of a conversion (u, x, t) -> view, a batch of one of PyTorch: of the exact field the exact view."""
    mixture = skewed_mixture()
    exact = jax.jit(mixture.vector_field(STRAIGHT))

    def field(x: Array, t: Array, y: Array) -> Any:
        import torch

        rows = (torch.from_numpy(np.array(each, np.float32))[None] for each in (exact(x, t, y), x, t))
        return convert(*rows).numpy()[0]

    return Record(call, "conversion", lambda: verify.field(field, STRAIGHT, mixture, view).checks, (), remark)
