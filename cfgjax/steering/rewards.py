"""Rewards r_t(x): functions by whose exponential particles tilt the law p_t of a field.

(R1) The reward of data is r_1. Before the end r_t is any guess of what r_1 will be: the law at t = 1 is p_1 e^(r_1)
     whatever it was, and the better the guess, the more equal the weights.
(R2) The best guess is  log E[exp(r_1(z)) | x_t = x],  for a likelihood log p_t(m|x).
(R3) Rewards are added as functions are: of a label, of a measurement, of both.
A reward that is -inf gives the weight 0, for good: before the end too, so that only what can no longer come right is
-inf there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import jax.numpy as jnp

from cfgjax.checks import evaluated, require_function, require_label, require_point, require_rank, require_scalar
from cfgjax.contracts import Contract, Finite, StateField, checked
from cfgjax.conversions import denoiser_of
from cfgjax.paths import as_float, as_state
from cfgjax.types import Array, GaussianPath, LogClassifier, LogLikelihoodOfData, Number, Reward, Schedule


def scalar_output(name: str, reward: Callable[..., Any]) -> Reward:
    """The reward (x, t) -> [] in floating point, whose every value is found to be one number.

    Raises:
        TypeError: what cannot be called, at once; at a call, a state, a time or a value that are no real numbers, and
            a reward that wants a label.
        ValueError: at a call, several values, or where concrete a time outside [0, 1].
    """
    require_function(name, reward)

    def checked_reward(x: Array, t: Array) -> Array:
        require_point(x, t)
        value = evaluated(name, reward, x, t)
        require_scalar(f"{name}(x, t)", value)
        return as_float(value)

    return checked_reward


ScalarReward = Annotated[Reward, Contract(scalar_output)]
"""A reward whose values are found to be one number."""


def _linear(t: Array) -> Array:
    return t


def _constant(t: Array) -> Array:
    return jnp.ones_like(t)


def _scaled(log_likelihood: LogLikelihoodOfData, schedule: Schedule, z: Array, t: Array) -> Array:
    """schedule(t) l(z), []; 0 where the schedule is 0, be l infinite."""
    value, factor = log_likelihood(z), schedule(t)
    require_scalar("log_likelihood(z)", value)
    require_scalar("schedule(t)", factor)
    return jnp.where(factor == 0, 0, factor * as_float(value))


@checked
def of_denoised(
    path: GaussianPath, field: StateField, log_likelihood: LogLikelihoodOfData, schedule: Schedule = _constant
) -> Reward:
    """The reward r_t(x) = schedule(t) l(D(x, t)) of the denoised estimate D = E[z|x]; at t = 1, where D = x, of x.

    One evaluation of the field each time, which its gradient leads back through; at t = 1 it does not count.

    Args:
        path: the path of the field.
        field: the vector field (x, t), guided or not.
        log_likelihood: z [*D] -> [], as ``steering.log_likelihood(measurement)`` is, or any reward of data.
        schedule: t [] -> [], 1 at t = 1. A D that is uncertain makes a sharp l misleading early on: a schedule that
            rises tempers it.

    Source: Wu et al., arXiv 2306.17775, equation 8; Singhal et al., arXiv 2501.06848, section 3.2.
    """
    denoiser = denoiser_of(path, field)

    def reward(x: Array, t: Array) -> Array:
        is_end = t >= 1
        denoised = jnp.where(is_end, x, denoiser(x, jnp.where(is_end, 0.5, t)))
        return _scaled(log_likelihood, schedule, denoised, t)

    return reward


@checked
def annealed(log_likelihood: LogLikelihoodOfData, schedule: Schedule = _linear) -> Reward:
    """The reward r_t(x) = schedule(t) l(x) of the state itself: no evaluation of any field.

    Args:
        log_likelihood: z [*D] -> [], as ``steering.log_likelihood(measurement)`` is, or any reward of data.
        schedule: t [] -> [], 1 at t = 1; from 0 on at t = 0 particles start with equal weights.

    >>> reward = annealed(lambda z: -jnp.sum(z * z))
    >>> float(reward(jnp.ones(2), jnp.float32(0.5)))
    -1.0
    """
    return lambda x, t: _scaled(log_likelihood, schedule, as_state(x), t)


@checked
def of_label(log_classifier: LogClassifier, y: Number, scale: Finite = 1.0) -> Reward:
    """The reward r_t(x) = w log p_t(y|x), by which the null field's law becomes the tilted p^(1-w) p(.|y)^w.

    p(y|x) is p(x|y) / p(x) up to a factor: classifier-free guidance's law, by an exact or a learned classifier of
    noisy states. Of two densities it is  lambda x, t: w (log p_t(x|y) - log p_t(x)).

    Args:
        log_classifier: (x [*D], t []) -> [K], the log-probabilities of the labels.
        y: [], the label in 0..K-1.
        scale: [], w; may be traced.
    """
    require_label("y", y)

    def reward(x: Array, t: Array) -> Array:
        log_probs = log_classifier(x, t)
        require_rank("log_classifier", log_probs, 1)
        require_label("y", y, log_probs.shape[0] - 1)
        return scale * as_float(log_probs)[y]

    return reward
