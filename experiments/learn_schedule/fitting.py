"""What the parameters of a scale are fitted to: the tilted law through the solver, self-consistency, or annealing."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cfgjax import flow_maps, guidance, losses, solvers
from cfgjax.analysis import likelihood
from cfgjax.types import Array, Field, Scale, Solver, Tree
from experiments.learn_schedule.scales import FIELD, MIXTURE, NULL, PAIR, PATH, network
from experiments.runtime import progress

MeanLoss = Callable[[Tree, Array], Array]
"""``(params, key) -> []``."""


class Fit(NamedTuple):
    """How often and how fast parameters are updated by Adam, and of how many examples an update is."""

    num_updates: int
    batch_size: int
    learning_rate: float


def excess(scale: Scale, target: float, y: Array, noise: Array, ts: Array) -> Array:
    """log p_w(x|y) - log of the law tilted at ``target``, unnormalised, of the sample that ``noise`` becomes, []."""
    guided = guidance.given(guidance.classifier_free(FIELD, scale, NULL), y)

    def make_solver(field: Field) -> Solver:
        return solvers.remat(solvers.heun(field))

    log_p, x = likelihood.sample_log_density(make_solver, likelihood.exact_divergence(guided), noise, ts)
    density, end = MIXTURE.log_density(PATH), jnp.ones(())
    return log_p - (1 - target) * density(x, end, jnp.asarray(NULL)) - target * density(x, end, y)


def divergence(scale_of: Callable[[Tree], Scale], target: float, batch_size: int, num_steps: int) -> MeanLoss:
    """The divergence of the guided ODE's law from the tilted one, but for log Z, of a batch of all labels."""
    ts, labels = jnp.linspace(0, 1, num_steps + 1), jnp.arange(batch_size) % NULL

    def loss(params: Tree, key: Array) -> Array:
        noise = jax.random.normal(key, (batch_size, 2))
        return jnp.mean(jax.vmap(lambda y, noise: excess(scale_of(params), target, y, noise, ts))(labels, noise))

    return loss


def _of_data(one: Callable[[Tree, Array, Array, Array], Array], batch_size: int) -> MeanLoss:
    """The mean of one(params, key, z, y) over a batch of data of all labels."""
    labels = jnp.arange(batch_size) % NULL

    def loss(params: Tree, key: Array) -> Array:
        data_keys, loss_keys = jax.random.split(key, (2, batch_size))
        z = jax.vmap(MIXTURE.sample)(data_keys, labels)
        return jnp.mean(jax.vmap(partial(one, params))(loss_keys, z, labels))

    return loss


def consistency(scale_of: Callable[[Tree], Scale], strength: float, batch_size: int) -> MeanLoss:
    """(L9) of a scale of t and y, with the reward strength * log p_t(y|x)."""
    log_probs = MIXTURE.label_log_probs(PATH)

    def one(params: Tree, key: Array, z: Array, y: Array) -> Array:
        def scale(t: Array, t_next: Array, y: Array) -> Array:
            return guidance.scale_at(scale_of(params), t, y)

        return losses.self_consistency(PATH, PAIR, scale, key, z, y, reward=lambda x, t: strength * log_probs(x, t)[y])

    return _of_data(one, batch_size)


def annealing(batch_size: int, num_steps: int) -> MeanLoss:
    """(L10) of ``scales.network``, at preferences that are drawn uniformly, on the grid of n even steps."""

    def one(params: Tree, key: Array, z: Array, y: Array) -> Array:
        preference_key, loss_key = jax.random.split(key)
        preference = jax.random.uniform(preference_key)

        def scale(t: Array, y: Array, gap: Array) -> Array:
            return network(params, t, gap, preference)

        times = flow_maps.step_times(num_steps)
        return losses.annealed_guidance(PATH, PAIR, scale, loss_key, z, y, preference, times=times)

    return _of_data(one, batch_size)


def fitter(loss: MeanLoss, fit: Fit) -> Callable[[Tree, Array], tuple[Tree, np.ndarray]]:
    """(start, key) -> the fitted parameters and the loss of each update: compiled once for all starts and keys."""
    optimizer = optax.adam(optax.cosine_decay_schedule(fit.learning_rate, fit.num_updates))

    @jax.jit
    def update(params: Tree, memory: optax.OptState, key: Array) -> tuple[Tree, optax.OptState, Array]:
        value, gradient = jax.value_and_grad(loss)(params, key)
        change, memory = optimizer.update(gradient, memory, params)
        return optax.apply_updates(params, change), memory, value

    def run(params: Tree, key: Array) -> tuple[Tree, np.ndarray]:
        memory, values = optimizer.init(params), []
        for own in progress.each(jax.random.split(key, fit.num_updates), "updates", "fitting"):
            params, memory, value = update(params, memory, own)
            values.append(float(value))
        return params, np.array(values)

    return run
