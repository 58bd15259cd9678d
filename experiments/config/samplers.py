"""How ONE sample of a guided field is drawn: the rules, the solvers and the grids by their names."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import conversions, flow_maps, guidance, solvers
from cfgjax.piecewise import Piecewise
from cfgjax.types import (
    Array,
    Condition,
    Field,
    FlowMap,
    GaussianPath,
    LabelledField,
    LogClassifier,
    Null,
    Number,
    Pair,
    Scale,
    Solver,
)
from experiments.cli.main import UserError

Build = Callable[[GaussianPath, Field], Solver | Piecewise[Solver]]
ODE_SOLVERS: dict[str, Build] = {
    "heun": lambda path, field: solvers.heun(field),
    "euler": lambda path, field: solvers.euler(field),
    "midpoint": lambda path, field: solvers.midpoint(field),
    "rk4": lambda path, field: solvers.rk4(field),
    "adams_bashforth": lambda path, field: solvers.adams_bashforth(field),
    "ddim": solvers.ddim,
    "dpm_solver": solvers.dpm_solver,
    "unipc": solvers.unipc,
}
SDE_SOLVERS: dict[str, Build] = {
    "euler_maruyama": lambda path, field: solvers.euler_maruyama(path, field, solvers.root_beta(path)),
    "stochastic_heun": lambda path, field: solvers.stochastic_heun(path, field, solvers.root_beta(path)),
}
SOLVERS = ODE_SOLVERS | SDE_SOLVERS
JUMPS: dict[str, Callable[[GaussianPath, FlowMap], Solver]] = {
    "jump": lambda path, flow_map: solvers.jump(flow_map),
    "renoised_jump": solvers.renoised_jump,
}
"""The solvers of flow maps."""
GRIDS: dict[str, Callable[[GaussianPath, int], Array]] = {
    "uniform": lambda path, num_steps: solvers.time_grids.uniform(num_steps),
    "karras": solvers.time_grids.karras,
    "logit_normal": lambda path, num_steps: solvers.time_grids.logit_normal(num_steps),
    "cosine": lambda path, num_steps: solvers.time_grids.cosine(num_steps),
    "sigmoid": lambda path, num_steps: solvers.time_grids.sigmoid(num_steps),
}
ODE, SDE, ADAPTIVE, JUMP = "heun", "euler_maruyama", "adaptive", "jump"

Rule = Callable[[Scale], LabelledField]
"""guidance scale [] -> the guided field."""

RuleOf = Callable[[Callable[[LabelledField], LabelledField]], Rule]
"""(network's field -> what stands in its place) -> the rule of all networks that it evaluates."""

Jumps = Callable[[Scale], FlowMap]
"""guidance scale, a number or an interval of one -> the flow map (x, t, r, y) of the guided ODE."""

Draw = Callable[[Array, Condition, Number], Array]
"""(key, condition, guidance scale []) -> one sample [*D]."""


Observe = Callable[[Any, Array], Array]
"""(carry, t) -> what is seen, the hook of ``solvers.integrate``."""

Watch = Callable[[Field], Observe]
"""guided field of one condition -> what is seen of its solve."""


def _low_pass(value: Array) -> Array:
    """The low frequencies of an image that can be halved; of anything else the mean."""
    is_image = value.ndim == 3 and not any(side % 2 for side in value.shape[:2])
    return guidance.filters.laplacian_low()(value) if is_image else guidance.filters.mean_low(value)


RULES: dict[str, Callable[[GaussianPath, Pair, Scale], LabelledField]] = {
    "classifier_free": lambda path, pair, scale: guidance.extrapolate(pair, scale),
    "rescaled": lambda path, pair, scale: guidance.rescaled(pair, scale),
    "projected": lambda path, pair, scale: guidance.extrapolate(guidance.projected(path, pair), scale),
    "cfg_zero_star": lambda path, pair, scale: guidance.extrapolate(guidance.cfg_zero_star(pair), scale),
    "tangential_damping": lambda path, pair, scale: guidance.extrapolate(
        guidance.tangential_damping(path, pair), scale
    ),
    "magnitude_aware": lambda path, pair, scale: guidance.extrapolate(guidance.magnitude_aware(pair), scale),
    "frequency_decoupled": lambda path, pair, scale: guidance.extrapolate(
        guidance.frequency_decoupled(pair, _low_pass), scale
    ),
    "static_threshold": lambda path, pair, scale: guidance.static_threshold(path, guidance.extrapolate(pair, scale)),
    "dynamic_threshold": lambda path, pair, scale: guidance.dynamic_threshold(path, guidance.extrapolate(pair, scale)),
}


class ReusedRule(NamedTuple):
    """A rule whose solves evaluate the null side at the start of each ``period``-th step alone.

    Called as a Rule it is the one that spares nothing.

    Attributes:
        rule: that one.
        pair: its two sides.
        build: (pair, scale) -> guided field.
        period: of the steps; in the others the difference of both sides is extrapolated.
    """

    rule: Rule
    pair: Pair
    build: Callable[[Pair, Scale], LabelledField]
    period: int
    ends: tuple[float, float] = (0.0, 1.0)

    def __call__(self, scale: Scale) -> LabelledField:
        """The guided field that spares nothing."""
        return self.rule(scale)

    def steps(self, make_solver: Callable[[Field], Solver], y: Condition, scale: Scale, ts: np.ndarray) -> Any:
        """The solver of one condition on a grid."""
        between = scale if self.ends == (0, 1) else guidance.interval(scale, *self.ends)
        schedule = guidance.reuse_every(ts, self.period)
        return solvers.with_field_state(make_solver, guidance.reused(self.pair, between, y, schedule, self.build))


if TYPE_CHECKING:
    SolverName = GridName = RuleName = str
else:  # the command line's choices are the tables' names
    SolverName, GridName, RuleName = Literal[(*SOLVERS, ADAPTIVE, *JUMPS)], Literal[tuple(GRIDS)], Literal[tuple(RULES)]


def one_sided(rule: Rule, scale: float) -> Rule:
    """The rule for samples at one scale: a scale of 0 or 1 evaluates one side alone."""
    return (lambda _: rule(scale)) if scale in (0.0, 1.0) else rule


def classifier_free(field: LabelledField, null: Null) -> Rule:
    """Classifier-free guidance of a field that knows the null."""
    return lambda scale: guidance.classifier_free(field, scale, null)


def by_name(name: RuleName, path: GaussianPath, pair: Pair, ends: tuple[float, float]) -> Rule:
    """A rule of RULES on a pair, between two times; by its papers' usual numbers."""
    return lambda scale: RULES[name](path, pair, scale if ends == (0, 1) else guidance.interval(scale, *ends))


def with_reuse(
    rule: Rule, name: RuleName, path: GaussianPath, pair: Pair, ends: tuple[float, float], period: int
) -> Rule:
    """A rule of RULES on a pair that evaluates the null side in each ``period``-th step alone."""
    return ReusedRule(rule, pair, lambda pair, scale: RULES[name](path, pair, scale), period, ends)


def by_classifier(field: LabelledField, null: Null, log_classifier: LogClassifier, path: GaussianPath) -> Rule:
    """Classifier guidance of the null field."""
    return lambda scale: guidance.classifier(path, guidance.given(field, null), log_classifier, scale)


def times(
    path: GaussianPath, num_steps: int, grid: GridName = "uniform", edges: tuple[float, float] = (0.0, 1.0)
) -> np.ndarray:
    """The grid of a name, [n + 1], with an interval's edges on it.

    Raises:
        UserError: too few steps for the edges.
    """
    with jax.ensure_compile_time_eval():
        ts = np.asarray(GRIDS[grid](path, num_steps))
    try:
        return solvers.time_grids.insert_times(ts, edges)
    except ValueError as error:
        raise UserError(
            f"num_steps must be larger for the interval {edges[0]:g} {edges[1]:g}, got {num_steps}"
        ) from error


def _steps_of(solver: str, path: GaussianPath, rule: Rule, ts: np.ndarray, jumps: Jumps | None) -> Callable[..., Any]:
    """(condition, guidance scale) -> the solver of a name."""
    if isinstance(rule, ReusedRule):
        if solver not in SOLVERS:
            raise UserError(f"reuse must be left out for the solver {solver}")
        make = cast(Callable[[Field], Solver], partial(SOLVERS[solver], path))
        return lambda y, scale: rule.steps(make, y, scale, ts)
    if solver not in JUMPS:
        return lambda y, scale: SOLVERS[solver](path, guidance.given(rule(scale), y))
    if jumps is None:
        raise UserError(f"solver {solver} needs a flow map, the objective of a preset such as mixture_flow_map")
    return lambda y, scale: JUMPS[solver](path, flow_maps.given(jumps(scale), y))


def make_draw(
    rule: Rule,
    path: GaussianPath,
    shape: tuple[int, ...],
    solver: str,
    ts: np.ndarray,
    watch: Watch | None = None,
    jumps: Jumps | None = None,
) -> Draw:
    """The function that draws ONE sample of a guided field on a grid of ``times``, [n + 1].

    ``adaptive`` chooses its own steps, by diffrax; those of JUMPS are of a flow map. With ``watch`` it gives what was
    seen at all n + 1 times of the grid, [n + 1, *D], in the place of the sample.

    Raises:
        UserError: steps of its own to be watched, or jumps of what is no flow map.
    """
    if watch is not None and solver == ADAPTIVE:
        raise UserError("solver must be one of a fixed grid to show its steps, got adaptive")
    if solver == ADAPTIVE and not isinstance(rule, ReusedRule):
        return _adaptive_draw(rule, shape)
    steps_of = _steps_of(solver, path, rule, ts, jumps)

    def draw(key: Array, y: Condition, scale: Number) -> Array:
        noise_key, solver_key = jax.random.split(key)
        noise = jax.random.normal(noise_key, shape)
        if watch is None:
            return solvers.integrate(steps_of(y, scale), solver_key, noise, ts)
        observe = watch(guidance.given(rule(scale), y))
        _, seen = solvers.integrate(steps_of(y, scale), solver_key, noise, ts, observe=observe)
        return seen

    return draw


def num_evaluations(
    rule_of: RuleOf,
    field: LabelledField,
    path: GaussianPath,
    shape: tuple[int, ...],
    solver: str,
    ts: np.ndarray,
    scale: float,
    y: Condition = 0,
) -> int | None:
    """How often one sample of y at a scale evaluates such fields; None for ``adaptive``, whose samples differ in it."""
    if solver == ADAPTIVE:
        return None
    if solver in JUMPS:
        return len(ts) - 1

    def build(field: LabelledField) -> Solver | Piecewise[Solver]:
        return _steps_of(solver, path, one_sided(rule_of(lambda _: field), scale), ts, None)(y, scale)

    return int(solvers.num_function_evaluations(build, field, jnp.zeros(shape), ts).sum())


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

    def draw(key: Array, y: Condition, scale: Number) -> Array:
        noise = jax.random.normal(jax.random.split(key)[0], shape)
        return adaptive.integrate(guidance.given(rule(scale), y), noise).x

    return draw
