"""Drawing samples of a guided field: one compiled call for all labels, scales and keys."""

import contextlib
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from cfgjax import conversions, guidance, solvers, sweeps
from cfgjax.pieces import Piecewise
from cfgjax.types import Array, Field, GaussianPath, LabelledField, LogClassifier, Number, Pair, Scale, Solver, Tree
from experiments import command, processes, progress
from experiments.command import UserError
from experiments.programs import compiled, plan_of

SOLVERS: dict[str, Callable[[GaussianPath, Field], Solver | Piecewise[Solver]]] = {
    "heun": lambda path, field: solvers.heun(field),
    "euler": lambda path, field: solvers.euler(field),
    "midpoint": lambda path, field: solvers.midpoint(field),
    "rk4": lambda path, field: solvers.rk4(field),
    "adams_bashforth": lambda path, field: solvers.adams_bashforth(field),
    "ddim": solvers.ddim,
    "dpm_solver": solvers.dpm_solver,
    "unipc": solvers.unipc,
    "euler_maruyama": lambda path, field: solvers.euler_maruyama(path, field, solvers.root_beta(path)),
    "stochastic_heun": lambda path, field: solvers.stochastic_heun(path, field, solvers.root_beta(path)),
}
SolverName = Literal[
    "heun", "euler", "midpoint", "rk4", "adams_bashforth", "ddim", "dpm_solver", "unipc", "euler_maruyama",
    "stochastic_heun", "adaptive",
]  # fmt: skip
GRIDS: dict[str, Callable[[GaussianPath, int], Array]] = {
    "uniform": lambda path, num_steps: solvers.grids.uniform(num_steps),
    "karras": solvers.grids.karras,
    "logit_normal": lambda path, num_steps: solvers.grids.logit_normal(num_steps),
    "cosine": lambda path, num_steps: solvers.grids.cosine(num_steps),
    "sigmoid": lambda path, num_steps: solvers.grids.sigmoid(num_steps),
}
GridName = Literal["uniform", "karras", "logit_normal", "cosine", "sigmoid"]
_DEVICES = "devices"
MOST_CALLS = 50
"""Calls of a program between which progress is shown."""
ODE, SDE, ADAPTIVE = "heun", "euler_maruyama", "adaptive"

Rule = Callable[[Number], LabelledField]
"""guidance scale [] -> the guided field."""

Draw = Callable[[Array, Array, Number], Array]
"""(key, label [], guidance scale []) -> one sample [*D]."""


Observe = Callable[[Any, Array], Array]
"""(carry, t) -> what is seen, the hook of ``solvers.integrate``."""

Watch = Callable[[Field], Observe]
"""guided field of one label -> what is seen of its solve."""

RULES: dict[str, Callable[[GaussianPath, Pair, Scale], LabelledField]] = {
    "classifier_free": lambda path, pair, scale: guidance.extrapolate(pair, scale),
    "rescaled": lambda path, pair, scale: guidance.rescaled(pair, scale),
    "projected": lambda path, pair, scale: guidance.extrapolate(guidance.projected(path, pair), scale),
    "zero_star": lambda path, pair, scale: guidance.extrapolate(guidance.zero_star(pair), scale),
    "tangential": lambda path, pair, scale: guidance.extrapolate(guidance.tangential(path, pair), scale),
    "clipped": lambda path, pair, scale: guidance.clipped(path, guidance.extrapolate(pair, scale)),
    "dynamically_clipped": lambda path, pair, scale: guidance.dynamically_clipped(
        path, guidance.extrapolate(pair, scale)
    ),
}
RuleName = Literal[
    "classifier_free", "rescaled", "projected", "zero_star", "tangential", "clipped", "dynamically_clipped"
]


def classifier_free(field: LabelledField, null_label: int) -> Rule:
    """Classifier-free guidance of a field that knows the null label."""
    return lambda scale: guidance.classifier_free(field, scale, null_label)


def by_name(name: RuleName, path: GaussianPath, pair: Pair, ends: tuple[float, float]) -> Rule:
    """A rule of RULES on a pair, between two times; by its papers' usual numbers."""
    return lambda scale: RULES[name](path, pair, scale if ends == (0, 1) else guidance.interval(scale, *ends))


def by_classifier(field: LabelledField, null_label: int, log_classifier: LogClassifier, path: GaussianPath) -> Rule:
    """Classifier guidance of the null field."""
    return lambda scale: guidance.classifier(guidance.given(field, null_label), log_classifier, path, scale)


def times(path: GaussianPath, num_steps: int, grid: GridName, edges: tuple[float, float]) -> np.ndarray:
    """The grid of a name, [n + 1], with an interval's edges on it.

    Raises:
        UserError: too few steps for the edges.
    """
    try:
        return solvers.grids.with_points(np.asarray(GRIDS[grid](path, num_steps)), edges)
    except ValueError as error:
        raise UserError(
            f"num_steps must be larger for the interval {edges[0]:g} {edges[1]:g}, got {num_steps}"
        ) from error


def make_draw(
    rule: Rule,
    path: GaussianPath,
    shape: tuple[int, ...],
    solver: str,
    num_steps: int,
    grid: GridName = "uniform",
    edges: tuple[float, float] = (0.0, 1.0),
    watch: Watch | None = None,
) -> Draw:
    """The function that draws ONE sample of a guided field, the edges of whose interval become times of the grid.

    ``adaptive`` chooses its own steps, by diffrax. With ``watch`` it gives what was seen at all n + 1 times of the
    grid, [n + 1, *D], in the place of the sample.

    Raises:
        UserError: too few steps for the edges, or steps of its own to be watched.
    """
    if watch is not None and solver == ADAPTIVE:
        raise UserError("solver must be one of a fixed grid to show its steps, got adaptive")
    with jax.ensure_compile_time_eval():
        ts = times(path, num_steps, grid, edges)
    if solver == ADAPTIVE:
        return _adaptive_draw(rule, shape)

    def draw(key: Array, y: Array, scale: Number) -> Array:
        noise_key, solver_key = jax.random.split(key)
        guided = guidance.given(rule(scale), y)
        noise = jax.random.normal(noise_key, shape)
        rule_of_steps = SOLVERS[solver](path, guided)
        if watch is None:
            return solvers.integrate(rule_of_steps, solver_key, noise, ts)
        _, seen = solvers.integrate(rule_of_steps, solver_key, noise, ts, observe=watch(guided))
        return seen

    return draw


def num_evaluations(
    rule_of: Callable[[LabelledField], Rule],
    field: LabelledField,
    path: GaussianPath,
    shape: tuple[int, ...],
    solver: str,
    ts: np.ndarray,
) -> int | None:
    """How often one sample evaluates the field; None for ``adaptive``, whose samples differ in it."""
    if solver == ADAPTIVE:
        return None

    def build(field: LabelledField) -> Solver | Piecewise[Solver]:
        return SOLVERS[solver](path, guidance.given(rule_of(field)(1.0), 0))

    return int(solvers.evaluations(build, field, jnp.zeros(shape), ts).sum())


def states(guided: Field) -> Observe:
    """What is seen of a solve: the state x_t."""
    return lambda carry, t: carry.x


def denoised(path: GaussianPath) -> Watch:
    """What is seen of a solve: the denoised prediction of the guided field at x_t."""

    def watch(guided: Field) -> Observe:
        denoiser = conversions.denoiser_of(path, guided)
        return lambda carry, t: denoiser(carry.x, t)

    return watch


def _adaptive_draw(rule: Rule, shape: tuple[int, ...]) -> Draw:
    try:
        from cfgjax.solvers import adaptive
    except ImportError as error:
        raise UserError(str(error)) from error

    def draw(key: Array, y: Array, scale: Number) -> Array:
        noise = jax.random.normal(jax.random.split(key)[0], shape)
        return adaptive.integrate(guidance.given(rule(scale), y), noise).x

    return draw


def keys_at(seed: int, indices: Array) -> Array:
    """The keys of the samples of these indices, [n]: sample i's is fold_in(seed's key, i), whatever the batch."""
    return jax.vmap(lambda index: jax.random.fold_in(jax.random.key(seed), index))(indices)


def sample_keys(seed: int, num_samples: int) -> Array:
    """The keys of samples 0..n-1, [n], as ``keys_at``."""
    return keys_at(seed, jnp.arange(num_samples))


def _on_own_devices(one_device: Callable[[Any, Tree], Array]) -> Callable[[Any, Tree], Array]:
    """The function over this process's devices: each takes its share of the second argument's rows."""
    if jax.local_device_count() == 1:
        return one_device
    mesh = jax.sharding.Mesh(np.asarray(jax.local_devices()), (_DEVICES,))
    rows, whole = PartitionSpec(_DEVICES), PartitionSpec()
    return jax.shard_map(
        one_device, mesh=mesh, in_specs=(whole, rows), out_specs=PartitionSpec(None, _DEVICES), check_vma=False
    )


def _own_rows(num_samples: int) -> np.ndarray:
    """The indices of the samples that this process draws, a multiple of its devices; the last are drawn repeatedly."""
    num_devices = jax.local_device_count()
    count = -(-num_samples // (jax.process_count() * num_devices)) * num_devices
    return np.minimum(jax.process_index() * count + np.arange(count), num_samples - 1)


def equal_parts(num_rows: int, num_devices: int, least: int) -> list[np.ndarray]:
    """The rows in parts of one size, one program's, that the devices divide: at most MOST_CALLS, the last filled up.

    >>> [part.tolist() for part in equal_parts(5, 1, 2)]
    [[0, 1], [2, 3], [4, 4]]
    """
    own = -(-num_rows // num_devices)
    size = num_devices * -(-own // min(MOST_CALLS, -(-own // max(1, least))))
    return [np.minimum(np.arange(start, start + size), num_rows - 1) for start in range(0, num_rows, size)]


def own_sweep(
    draw_of: Callable[[Tree], Draw],
    params: Tree,
    keys: Array,
    labels: np.ndarray,
    scales: tuple[float, ...],
    chunk: int | None = None,
    what: str | None = None,
) -> Callable[[Tree], np.ndarray]:
    """The function of parameters that computes this process's share of the samples, [its n, scales, *D].

    It is compiled once for all parameters of the shapes of ``params``, and waits for no other process. Sample i has key
    i and label i at every scale; all devices of this process take their share of its samples, ``chunk`` at a time, by
    default as many as they are quick with. To show progress on ``what`` is done, the program is called several times.
    """
    rows = _own_rows(len(labels))
    own_keys, asked = keys[rows], jnp.asarray(labels, jnp.int32)[rows]
    draw_one = lambda params, *one: draw_of(params)(*one)  # noqa: E731
    plan = plan_of(draw_one, params, own_keys[0], asked[0], jnp.float32(scales[0]), shared=1)
    size = chunk or plan.chunk
    least = len(rows) if what is None else size // len(scales)
    parts = equal_parts(len(rows), jax.local_device_count(), least)
    command.detail(f"samples x scales: {len(labels)} x {len(scales)}; at most {size} together; calls: {len(parts)}")

    def sweep(whole: tuple[Tree, Array], each: tuple[Array, Array]) -> Array:
        draw, scales = draw_of(whole[0]), whole[1]
        return sweeps.sweep(lambda scale, one: draw(one[0], one[1], scale), scales, each, chunk=size)

    example = (params, jnp.asarray(scales)), (own_keys[parts[0]], asked[parts[0]])
    program = compiled(_on_own_devices(sweep), example, plan.compiler_options)

    def run(params: Tree) -> np.ndarray:
        whole, drawn = (params, jnp.asarray(scales)), []
        shown = None if what is None else progress.bar(len(labels) * len(scales), "samples", what)
        with shown or contextlib.nullcontext():
            for part in parts:
                drawn.append(np.asarray(program(whole, (own_keys[part], asked[part]))))
                if shown is not None:
                    shown.update(min(len(part) * len(scales) * jax.process_count(), shown.total - shown.n))
        return np.moveaxis(np.concatenate(drawn, axis=1)[:, : len(rows)], 1, 0)

    return run


def gather(own: np.ndarray, num_samples: int, scales: tuple[float, ...]) -> np.ndarray:
    """The samples [scales, n, *D] of all processes, on every one of them, of what ``own_sweep`` gave each.

    Raises:
        UserError: samples that are not finite, with the scale.
    """
    samples = np.moveaxis(processes.gathered(own)[:num_samples], 0, 1)
    for scale, its_samples in zip(scales, samples, strict=True):
        if not np.all(np.isfinite(its_samples)):
            raise UserError(f"samples at scale {scale:g} are not finite; choose a smaller scale or more steps")
    return samples


def draw_all(
    draw: Draw,
    seed: int,
    labels: np.ndarray,
    scales: tuple[float, ...],
    chunk: int | None = None,
    what: str = "sampling",
) -> np.ndarray:
    """Samples [scales, n, *D] by one compiled program; sample i has its label and its noise at every scale.

    All devices of all processes take their share, and every process is given all samples. A device computes ``chunk``
    at a time, by default as many as it is quick with. Its progress is shown as that on ``what`` is done.

    Raises:
        UserError: samples that are not finite, with the scale.
    """
    sweep = own_sweep(lambda _: draw, None, sample_keys(seed, len(labels)), labels, scales, chunk, what)
    return gather(sweep(None), len(labels), scales)
