"""Training on a ring at a drop rate, with or without null_consistency, and the errors that are left."""

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from cfgjax import guidance, losses, training
from cfgjax.models import MLP
from cfgjax.types import Array, Condition, Tree
from experiments.drop_rates.errors import EXACT, NULL, PATH, RING, Errors, errors, points


class Training(NamedTuple):
    """Of a small MLP by Adam, whose learning rate falls to 0 by a cosine."""

    num_updates: int
    batch_size: int
    width: int
    learning_rate: float


def _trained(settings: Training, network: MLP, key: Array, rate: Array, weight: Array | None) -> Tree:
    """The parameters after training; without a weight flow matching alone."""

    def loss(params: Tree, key: Array, example: Array) -> Array:
        label_key, data_key, drop_key, loss_key, null_key = jax.random.split(key, 5)
        y = RING.sample_label(label_key)
        z = RING.sample(data_key, y)

        def field(x: Array, t: Array, y: Condition) -> Array:
            return cast(Array, network.apply(params, x, t, y))

        value = losses.flow_matching(PATH, field, loss_key, z, guidance.drop_condition(drop_key, y, rate, NULL))
        return value if weight is None else value + weight * losses.null_consistency(PATH, field, null_key, z, y, NULL)

    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adam(optax.cosine_decay_schedule(settings.learning_rate, settings.num_updates)),
    )
    step = training.make_step(loss, optimizer, 0.0)
    init_key, run_key = jax.random.split(key)
    params = network.init(init_key, jnp.zeros(2), jnp.zeros(()), jnp.asarray(NULL))
    batch = jnp.zeros(settings.batch_size, jnp.int32)
    state = training.init_state(params, optimizer, run_key)
    return jax.lax.scan(lambda state, _: (step(state, batch)[0], None), state, length=settings.num_updates)[0].params


def study(
    settings: Training, num_points: int, scales: tuple[float, ...]
) -> Callable[[Array, Array, Array | None], Errors]:
    """The compiled function (keys [seeds], drop rate, weight of null_consistency or None) -> errors, [seeds] each."""
    network, at = MLP(NULL, settings.width, depth=2), points(jax.random.key(1), num_points)

    def one(key: Array, rate: Array, weight: Array | None) -> Errors:
        params = _trained(settings, network, key, rate, weight)
        pair = guidance.pair(lambda x, t, y: cast(Array, network.apply(params, x, t, y)), NULL)
        return errors(pair, EXACT, *at, jnp.asarray(scales))

    return jax.jit(jax.vmap(one, (0, None, None)))
