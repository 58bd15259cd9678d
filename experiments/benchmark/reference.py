"""What a careful person would write for one network by hand, in plain JAX: whole batches, no abstractions.

The same weights and numbers as the library's networks; one doubled forward pass for guidance, one scan for the
steps, a donated state, one key for all noise of a batch. The library is timed against these.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax import lax

from cfgjax.types import Array, Tree
from experiments.benchmark.reference_networks import network_of
from experiments.benchmark.workloads import Workload


def guided_of(work: Workload) -> Callable[..., Array]:
    """(weights, x, t, y, w) -> the guided field of a batch, by one doubled forward pass."""
    network, null = network_of(work), work.num_classes

    def guided(weights: Tree, x: Array, t: Array, y: Array, scale: Array) -> Array:
        both = network(weights, jnp.concatenate([x, x]), t, jnp.concatenate([jnp.full_like(y, null), y]))
        unlabelled, labelled = jnp.split(both, 2)
        return (1 - scale) * unlabelled + scale * labelled

    return guided


def _euler(field: Callable, x: Array, memory: tuple, now: tuple) -> tuple[Array, tuple]:
    t, t_next, _ = now
    return x + (t_next - t) * field(x, t), memory


def _heun(field: Callable, x: Array, memory: tuple, now: tuple) -> tuple[Array, tuple]:
    t, t_next, _ = now
    first = field(x, t)
    second = field(x + (t_next - t) * first, t_next)
    return x + 0.5 * (t_next - t) * (first + second), memory


def _euler_maruyama(field: Callable, x: Array, memory: tuple, now: tuple) -> tuple[Array, tuple]:
    """sigma^2 = 2 (1 - t) on the straight path: drift u + (t u - x), as s = (t u - x) / (1 - t)."""
    t, t_next, key = now
    step, value = t_next - t, field(x, t)
    drift = value + (t * value - x)
    return x + step * drift + jnp.sqrt(2 * (1 - t) * step) * jax.random.normal(key, x.shape), memory


def _dpm_solver(field: Callable, x: Array, memory: tuple, now: tuple) -> tuple[Array, tuple]:
    """Second-order multistep in the denoiser D = x + (1 - t) u; the first steps are of first order."""
    (t, t_next, _), (last, t_last) = now, memory
    denoised = x + (1 - t) * field(x, t)
    growth, growth_last = (
        jnp.log(late / (1 - late)) - jnp.log(early / (1 - early)) for early, late in ((t, t_next), (t_last, t))
    )
    share = jnp.where(t_last > 0, growth / (2 * growth_last), 0.0)
    shrink = (1 - t_next) / (1 - t)
    return shrink * x + (t_next - t * shrink) * (denoised + share * (denoised - last)), (denoised, t)


Loss = Callable[[Tree, Array, Array, Array], Array]
"""(weights, key, data [B, *D], labels [B]) -> []."""

RULES = {"euler": _euler, "heun": _heun, "euler_maruyama": _euler_maruyama, "dpm_solver": _dpm_solver}
EVALUATIONS = {"heun": 2}
"""Evaluations of the field in one step, where not one."""


def sampler_of(work: Workload, method: str, chunk: int | None) -> Callable[..., Array]:
    """(weights, key, noise [B, *D], labels [B], w [] or [B, 1...], ts) -> samples [B, *D], chunk after chunk."""
    guided, rule = guided_of(work), RULES[method]

    def sample(weights: Tree, ts: Array, key: Array, noise: Array, labels: Array, scale: Array) -> Array:
        def step(carry: tuple, now: tuple) -> tuple[tuple, None]:
            x, memory = carry
            return rule(lambda x, t: guided(weights, x, t, labels, scale), x, memory, now), None

        memory = (jnp.zeros_like(noise), jnp.zeros(())) if method == "dpm_solver" else ()
        times = (ts[:-1], ts[1:], jax.random.split(key, len(ts) - 1))
        return lax.scan(step, (noise, memory), times)[0][0]

    def chunked(weights: Tree, key: Array, noise: Array, labels: Array, scale: Array, ts: Array) -> Array:
        count = 1 if chunk is None else len(noise) // chunk
        if count == 1:
            return sample(weights, ts, key, noise, labels, scale)
        examples = (noise, labels, scale) if jnp.ndim(scale) else (noise, labels)
        parts = jax.tree.map(lambda leaf: leaf.reshape(count, -1, *leaf.shape[1:]), examples)

        def draw(part: tuple[Array, tuple[Array, ...]]) -> Array:
            key, (noise, labels, *own) = part
            return sample(weights, ts, key, noise, labels, own[0] if own else scale)

        return lax.map(draw, (jax.random.split(key, count), parts)).reshape(noise.shape)

    return chunked


def loss_of(work: Workload) -> Loss:
    """The guided flow-matching loss of a batch."""
    network, null = network_of(work), work.num_classes

    def loss(weights: Tree, key: Array, data: Array, labels: Array) -> Array:
        noise_key, time_key, drop_key = jax.random.split(key, 3)
        noise, t = jax.random.normal(noise_key, data.shape), jax.random.uniform(time_key, labels.shape)
        labels = jnp.where(jax.random.bernoulli(drop_key, 0.1, labels.shape), null, labels)
        wide = t.reshape(-1, *(1 for _ in work.shape))
        found = network(weights, wide * data + (1 - wide) * noise, t, labels)
        return jnp.mean(jnp.square(found - (data - noise)))

    return loss


def train_step_of(
    loss: Loss, optimizer: optax.GradientTransformation, num_microbatches: int, num_steps: int
) -> Callable:
    """(state, data, labels) -> (state, losses [num_steps]): so many steps in one dispatch.

    A state is (weights, optimizer's state, moving average, key).
    """

    def gradient_of(weights: Tree, key: Array, data: Array, labels: Array) -> tuple[Array, Tree]:
        slope = jax.value_and_grad(loss)
        if num_microbatches == 1:
            return slope(weights, key, data, labels)
        parts = jax.tree.map(lambda leaf: leaf.reshape(num_microbatches, -1, *leaf.shape[1:]), (data, labels))
        zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, weights))

        def add(total: Tree, part: tuple) -> tuple[Tree, None]:
            return jax.tree.map(jnp.add, total, slope(weights, part[0], *part[1])), None

        total, _ = lax.scan(add, zeros, (jax.random.split(key, num_microbatches), parts))
        return jax.tree.map(lambda leaf: leaf / num_microbatches, total)

    def step(data: Array, labels: Array, state: tuple, _: None) -> tuple[tuple, Array]:
        weights, opt_state, average, key = state
        key, step_key = jax.random.split(key)
        value, gradient = gradient_of(weights, step_key, data, labels)
        updates, opt_state = optimizer.update(gradient, opt_state, weights)
        weights = optax.apply_updates(weights, updates)
        average = optax.incremental_update(weights, average, 0.001)
        return (weights, opt_state, average, key), value

    def steps(state: tuple, data: Array, labels: Array) -> tuple[tuple, Array]:
        if num_steps == 1:
            return step(data, labels, state, None)
        return lax.scan(partial(step, data, labels), state, None, length=num_steps)

    return steps
