"""The states of every rung at every guidance scale, and how far their samples lie from the exact laws."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import solvers
from cfgjax.checks import THREEFRY
from cfgjax.types import Array
from experiments.ladder import laws
from experiments.ladder.explorer.scene import Rung, Scene
from experiments.ladder.laws import Law
from experiments.ladder.problems import LABEL
from experiments.ladder.programs import num_evaluations
from experiments.ladder.rules import Cell
from experiments.runtime import progress


class Solved(NamedTuple):
    """What the page shows of a rung, at all W guidance scales.

    Attributes:
        states: [W, frames + 1, shown, 2].
        tilted: distances of the samples to the tilted law, [W]; NaN where they are not finite.
        labelled: to the labelled law, [W].
        evaluations: of the network for one sample, at a guidance scale that is not known.
    """

    states: np.ndarray
    tilted: np.ndarray
    labelled: np.ndarray
    evaluations: int


class Exact(NamedTuple):
    """The tilted laws of all guidance scales, and the labelled one, each with its floor."""

    tilted: list[Law]
    floors: list[float]
    labelled: Law
    labelled_floor: float


def exact_laws(scene: Scene) -> Exact:
    """The laws of a scene, drawn exactly."""
    plane = scene.problem.plane
    grid = laws.grid_of(plane)

    all_laws = [laws.law_of(plane, grid, scale) for scale in progress.each(scene.scales, "laws", "drawing them")]
    floors = laws.floors_of(grid, _stack(all_laws), scene.scales, scene.num_measured)
    labelled = laws.law_of(plane, grid, 1.0)
    (labelled_floor,) = laws.floors_of(grid, _stack([labelled]), [1.0], scene.num_measured)
    return Exact(all_laws, floors, labelled, labelled_floor)


def _stack(each: Sequence[Law]) -> Law:
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *each)


def _states(scene: Scene, rung: Rung, scale: Array, sigma: Array) -> Array:
    """States [frames + 1, measured, 2] of the same noise for every rung; particles are resampled at every time."""
    row, ts = scene.rules[rung.rule], np.linspace(0, 1, scene.num_steps + 1, dtype=np.float32)
    noise_key, key = jax.random.split(jax.random.key(0, impl=THREEFRY))
    noise = jax.random.normal(noise_key, (scene.num_measured, 2))
    solver = row.build(Cell(scene.problem, scene.path, LABEL, scale, rung.solver, sigma))
    stride = scene.num_steps // scene.num_frames
    if row.is_population:
        observe = lambda carry, t: carry.x[solvers.systematic_resampling(key, carry.log_weights)]  # noqa: E731
        return solvers.solve(solver, key, noise, ts, observe=observe)[1][::stride]

    def one(key: Array, x: Array) -> Array:
        return solvers.solve(solver, key, x, ts, observe=lambda carry, t: carry.x)[1][::stride]

    keys = jax.random.split(key, scene.num_measured)
    return jnp.swapaxes(jax.vmap(one)(keys, noise), 0, 1)


def _program(scene: Scene, rung: Rung, exact: Exact) -> Callable[[Array], tuple[Array, Array, Array]]:
    """sigma [] -> states of all guidance scales and both distances, compiled once for a rule and its solver."""
    tilted, labelled = _stack(exact.tilted), _stack([exact.labelled])
    only = jax.tree.map(lambda leaf: leaf[0], labelled)

    def at(scale: Array, law: Law, sigma: Array) -> tuple[Array, Array, Array]:
        states = _states(scene, rung, scale, sigma)
        found = jnp.stack([laws.energy_distance(states[-1], each) for each in (law, only)])
        found = jnp.where(jnp.all(jnp.isfinite(states[-1])), found, jnp.nan)
        return states[:, : scene.num_shown], found[0], found[1]

    scales = jnp.asarray(scene.scales, jnp.float32)
    return jax.jit(lambda sigma: jax.lax.map(lambda each: at(each[0], each[1], sigma), (scales, tilted)))


def solve_all(scene: Scene, exact: Exact) -> Iterator[Solved]:
    """What is shown of every rung of the scene, in their order."""
    made = {}
    for rung in progress.each(scene.rungs, "rungs", "sampling"):
        name = rung.rule, rung.solver
        if name not in made:
            row = scene.rules[rung.rule]
            made = {name: (_program(scene, rung, exact), num_evaluations(row, rung.solver, scene.num_steps))}
        program, evaluations = made[name]
        states, tilted, labelled = map(np.asarray, program(jnp.float32(rung.sigma)))
        yield Solved(states, tilted, labelled, evaluations)
