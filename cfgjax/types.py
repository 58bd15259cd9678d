"""Every function type and record of the library, named once.

All of them speak of ONE example. ``[*D]`` is the shape of a data point (any shape), ``[]`` a scalar, ``K`` the number
of labels; ``jax.vmap`` makes the batch. Time runs from 0 (noise) to 1 (data).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import jax
import numpy as np

Array = jax.Array
Number = float | int | jax.Array
"""A Python scalar or a scalar array, traced or not."""

Times = Array | np.ndarray
"""A grid of times, [n + 1]; one of NumPy or a concrete array is split at the edges of pieces, a traced one is not."""

Tree = Any
"""A pytree of arrays."""

Condition = Any
"""What y is for ONE example: a label, an integer in 0..K; or any pytree of arrays, the same for all examples.

Of a dict or a tuple the entries are several conditions. ``conditions.Known`` is one that may be left out.
"""

Null = Any
"""What takes y's place on the null side: a condition like y, or a function y -> condition that replaces some of it."""

Field = Callable[[Array, Array], Array]
"""``(x [*D], t []) -> [*D]``: a vector field, a score, a noise prediction or a denoiser."""

LabelledField = Callable[[Array, Array, Condition], Array]
"""``(x [*D], t [], y) -> [*D]``: a Field for each condition ``y``, as each label in 0..K-1, and for the null."""

LogClassifier = Callable[[Array, Array], Array]
"""``(x [*D], t []) -> [K]``: the log-probabilities log p_t(y|x) of the K labels."""

LogLikelihood = Callable[[Array, Array, Condition], Array]
"""``(x [*D], t [], y) -> []``: log p_t(y|x) of a condition, up to what does not depend on x."""

Reward = Callable[[Array, Array], Array]
"""``(x [*D], t []) -> []``: r_t(x), which tilts the law p_t to p_t e^(r_t) up to a factor."""

LinearOperator = Callable[[Array], Array]
"""``z [*D] -> [*M]``: A z, a linear function of a data point."""

LogLikelihoodOfData = Callable[[Array], Array]
"""``z [*D] -> []``: log p(m|z) of what is known of a data point, or any reward of it, up to a constant."""

LogDensityOfData = Callable[[Array, Condition], Array]
"""``(z [*D], y) -> []``: log p(z|y) of the data given a condition, also of the null."""

Schedule = Callable[[Array], Array]
"""``t [] -> []``: a differentiable function of time."""

LabelledSchedule = Callable[[Array, Condition], Array]
"""``(t [], y) -> []``: a differentiable function of time for each condition."""


ScaleOfSides = Callable[[Array, Array, Condition, Array, Array], Array]
"""``(x [*D], t [], y, null [*D], labelled [*D]) -> []``: a guidance scale of the state and of both sides."""

ScaleOfGap = Callable[[Array, Condition, Array], Array]
"""``(t [], y, gap []) -> []``: a guidance scale of the gap |E_y - E_null| between the two noise predictions."""


class Policy(NamedTuple):
    """A guidance scale that is a function of the state and of both sides, as ``guidance.policy`` makes it."""

    scale_of: ScaleOfSides


class Interval(NamedTuple):
    """A guidance scale that acts between two times; outside them the scale is 1, the labelled field alone."""

    scale: Number | Schedule | LabelledSchedule | Policy
    start: Number
    stop: Number


Scale = Number | Schedule | LabelledSchedule | Policy | Interval
"""A guidance scale w, as a number, a traced scalar, a function of t or of (t, y), a Policy, or an Interval of these."""

GuidedField = Callable[[Array, Array, Condition, Scale], Array]
"""``(x [*D], t [], y, w) -> [*D]``: a LabelledField for each guidance scale, a number or an Interval of one."""

FlowMap = Callable[..., Array]
"""``(x [*D], t [], r [], ...) -> [*D]``: the average velocity of an ODE's trajectory through x from t to r.

U(x, t, r) = (x_r - x) / (r - t), and at r = t the field. Further arguments are the condition y, and after it the
guidance scale w, a number or an Interval of one.
"""

Point = tuple[Array, Array, Array]
"""(x [*D], t [], r []), where a flow map is taken, or a direction in which these move."""

Derivative = Callable[[FlowMap, Point, Point], tuple[Array, Array]]
"""``(flow map, point, tangents) -> (value [*D], derivative [*D])``, the derivative along the tangents."""

Velocity = Callable[[Array, Array, Array], Array]
"""``(x [*D], t [], conditional velocity [*D]) -> [*D]``: what a flow map's loss regresses on at r = t."""

TimesDensity = Callable[[Array], tuple[Array, Array]]
"""``key -> (t [], r [])``: draws the two times of a flow map in training, t <= r."""

ResidualWeight = Callable[[Array], Array]
"""``mean square [] -> []``: a factor of a loss, made of the mean square of its residual."""

Both = Callable[[Array, Array, Condition], tuple[Array, Array]]
"""``(x [*D], t [], y) -> (null [*D], labelled [*D])``: both sides of guidance, evaluated together."""


Sides = Callable[..., tuple[Array, Array]]
"""``(x [*D], t [], y) -> (internal [*D], final [*D])``, or without y: what a network predicts in its middle and at its
end, in one evaluation."""


class Pair(NamedTuple):
    """The two fields between which guidance extrapolates.

    ``both`` evaluates them together, the null side first; ``labelled`` evaluates the labelled side alone, for where
    the scale is 1, and ``null`` the null side alone, for where it is 0: None where that side is made of both. The null
    side is what guidance leads away from: the null label's field, a negative label's, or a worse network's.
    """

    both: Both
    labelled: LabelledField
    null: LabelledField | None = None


AxisName = Any
"""The name of a mapped axis of JAX, or a tuple of names."""

TimeDensity = Callable[[Array], Array]
"""``key -> t []``: draws a training time in [0, 1]."""

ScaleDensity = Callable[[Array], Number | Interval]
"""``key -> w``: draws a guidance scale for training, one number [] or an Interval of one."""

Loss = Callable[[Tree, Array, Tree], Array]
"""``(params, key, example) -> []``: the loss of one example."""


class GaussianPath(NamedTuple):
    """The Gaussian probability path x = alpha(t) z + beta(t) noise, as its two schedules.

    The conventions are alpha(0) = beta(1) = 0 and alpha(1) = beta(0) = 1, with W = alpha' beta - alpha beta' > 0
    inside (0, 1). Derivatives are never given: ``paths.coefficients`` takes them by automatic differentiation.
    """

    alpha: Schedule
    beta: Schedule


class Coefficients(NamedTuple):
    """A path's coefficients at one time, each of shape []: alpha, beta, and their derivatives in t."""

    alpha: Array
    beta: Array
    alpha_dot: Array
    beta_dot: Array

    @property
    def wronskian(self) -> Array:
        """W = alpha' beta - alpha beta', the determinant that every conversion divides by."""
        return self.alpha_dot * self.beta - self.alpha * self.beta_dot


class PathSample(NamedTuple):
    """A draw from p_t(x|z): the state, the noise that made it, and the field's target alpha' z + beta' noise."""

    x: Array
    noise: Array
    field: Array


class Prediction(NamedTuple):
    """Four views of the same knowledge at (x, t), each [*D]: u, s, E[noise|x] and E[z|x]."""

    field: Array
    score: Array
    noise: Array
    denoiser: Array


class Carry(Protocol):
    """What a solver carries from step to step; ``x`` is the state."""

    @property
    def x(self) -> Array:
        """The state, [*D]."""
        ...


class State(NamedTuple):
    """The carry of a solver without memory."""

    x: Array


class Solver(NamedTuple):
    """One rule for one step in time.

    ``init: x -> carry`` starts it, ``step: (key, carry, t, t_next) -> carry`` advances it; ``carry.x`` is the state and
    a multistep rule keeps its history beside it. The solver owns its field. ``is_forward_only`` marks a rule that has
    no meaning on a decreasing grid, as a stochastic one's. ``restart: carry -> carry`` forgets the history of a
    multistep rule, where the field changes at the edge of a piece; None where there is none.
    """

    init: Callable[[Array], Carry]
    step: Callable[[Array, Any, Array, Array], Carry]
    is_forward_only: bool = False
    restart: Callable[[Any], Carry] | None = None


class WeightedSolver(NamedTuple):
    """One rule for one step of a population of weighted states, whose law they have only with their weights.

    ``init`` and ``step`` are those of a ``Solver``, on a carry that has ``log_weights`` beside ``x`` [n, *D]. It is no
    Solver: ``solvers.solve`` takes it, ``solvers.integrate``, which gives states alone, does not.
    """

    init: Callable[[Array], Carry]
    step: Callable[[Array, Any, Array, Array], Carry]
    is_forward_only: bool = True
    restart: None = None


class StatefulField(NamedTuple):
    """A field with state: ``init: x -> memory`` and ``apply: (x, t, memory) -> (value [*D], memory)``.

    ``solvers.with_field_state`` keeps the memory in a solver's carry. All evaluations of a step are by ``apply`` with
    the memory of the step's start, and the first one's is kept; with ``apply_later`` those after the first are by it,
    each with the memory that the one before left, and the last one's is kept.
    """

    init: Callable[[Array], Tree]
    apply: Callable[[Array, Array, Tree], tuple[Array, Tree]]
    apply_later: Callable[[Array, Array, Tree], tuple[Array, Tree]] | None = None


Evaluated = Literal["every", "first", "none"]
"""In which calls of the field in a solver's step both sides of guidance are evaluated (the first alone, or none)."""


class ReuseSchedule(NamedTuple):
    """In which steps of a grid u_y - u_null is evaluated; elsewhere it is extrapolated of what is known.

    ``ts`` are the n + 1 times of the grid, ``evaluated`` has a word for each of the n steps. ``order`` is the degree
    in t of the polynomial through the last evaluations: 0 keeps the last, 1 is a line, 2 a parabola.
    """

    ts: tuple[float, ...]
    evaluated: tuple[Evaluated, ...]
    order: int = 1


class Measurement(NamedTuple):
    """What is known of a data point z: ``value`` = operator(z) + noise_std * normal.

    The operators of ``steering.operators`` are pytrees, so that the whole record may be traced and mapped over.
    ``value`` is [*M], ``noise_std`` [].
    """

    operator: LinearOperator
    value: Array
    noise_std: Number


class EMAProfile(NamedTuple):
    """How a moving average weighs the past: after ``step`` steps, with ``posthoc_ema``'s (A2)."""

    step: float
    relative_std: float


class TrainState(NamedTuple):
    """All that training carries: an ordinary tree without a device axis.

    ``step`` counts updates, ``ema`` is the moving average of ``params`` in float32 (or of what ``training.eval_params``
    makes of them), ``key`` is the run's root key, of which every example's key is derived and which never changes.
    ``averages`` is a tuple of further moving averages, in float32.
    """

    step: Array
    params: Tree
    opt_state: Tree
    ema: Tree
    key: Array
    averages: Tree = ()
