"""A training step and a guided sampler run again: the same bits twice, and nothing compiled anew."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cfgjax import guidance, solvers, training
from cfgjax.types import Array, Number, Tree
from experiments.accelerator_check.checks import Check
from experiments.accelerator_check.inputs import inputs_of
from experiments.accelerator_check.rows import Value
from experiments.accelerator_check.sizes import Sizes
from experiments.benchmark import in_cfgjax, prepared
from experiments.benchmark.workloads import LAST_TIME, Workload
from experiments.cli.compilation_cache import Seen

GROUP = "Run again, in bfloat16"
LATEST = 0.5
RUNS = 3
"""With other numbers."""

Calls = tuple[Callable[..., Tree], list[tuple]]
"""A program, and arguments of RUNS calls and one before."""


def _without_keys(leaf: Array) -> Array:
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def _numbers(tree: Tree) -> list[np.ndarray]:
    return [np.asarray(_without_keys(leaf)) for leaf in jax.tree.leaves(tree)]


def _step_calls(work: Workload) -> Calls:
    """The step, from states with other keys, on batches in another order."""
    inputs, optimizer = inputs_of(work), optax.adamw(1e-4)
    weights = jax.tree.map(jnp.asarray, inputs.weights)
    batch = inputs.data, inputs.data_labels
    step = training.make_step(in_cfgjax.loss_of(work), optimizer, 0.999)
    calls = [
        (training.init_state(weights, optimizer, jax.random.key(seed)), tuple(np.roll(each, seed, 0) for each in batch))
        for seed in range(RUNS + 1)
    ]
    return jax.jit(step), calls


def _sampler_of(work: Workload) -> Callable[..., Array]:
    """(weights, key, noise [B, *D], labels [B], w [], times [n + 1]) -> samples by Heun."""
    network: Any = work.network

    def draw(weights: Tree, key: Array, noise: Array, y: Array, scale: Number, ts: Array) -> Array:
        field = guidance.classifier_free(lambda x, t, y: network.apply(weights, x, t, y), scale, work.num_classes)
        return solvers.integrate(solvers.heun(guidance.given(field, y)), key, noise, ts)

    def sample(weights: Tree, key: Array, noise: Array, labels: Array, scale: Array, ts: Array) -> Array:
        keys = jax.random.split(key, len(noise))
        return jax.vmap(draw, (None, 0, 0, 0, None, None))(weights, keys, noise, labels, scale, ts)

    return sample


def _sampler_calls(work: Workload) -> Calls:
    """The sampler, with other keys, noise, labels, scales and times."""
    inputs = inputs_of(work)
    weights, ts = jax.tree.map(jnp.asarray, inputs.weights), prepared.times_of(work, "heun")
    calls = [
        (
            weights, jax.random.key(seed), np.roll(inputs.noise, seed, 0), np.roll(inputs.labels, seed),
            np.float32(seed), LAST_TIME * np.power(ts / LAST_TIME, np.float32(1 + seed)),
        )
        for seed in range(RUNS + 1)
    ]  # fmt: skip
    return jax.jit(_sampler_of(work)), calls


def same_bits(program: Callable[..., Tree], args: tuple) -> dict[str, Value]:
    """Whether two runs on the same arguments give the same bits; if not, the arrays that differ, and by how much."""
    first, second = (_numbers(program(*args)) for _ in range(2))
    differing = [(one, two) for one, two in zip(first, second, strict=True) if one.tobytes() != two.tobytes()]
    if not differing:
        return {"same_bits": True, "arrays": len(first)}
    largest = max(float(np.max(np.abs(one.astype(np.float64) - two.astype(np.float64)))) for one, two in differing)
    return {"same_bits": False, "arrays": len(first), "differ": len(differing), "largest_difference": largest}


def compiled_anew(program: Callable[..., Tree], calls: list[tuple]) -> dict[str, Value]:
    """How many programs are compiled by all calls after the first."""
    first, *others = jax.block_until_ready(jax.device_put(calls))
    jax.block_until_ready(program(*first))
    seen = Seen()
    try:
        for args in others:
            jax.block_until_ready(program(*args))
    finally:
        seen.stop()
    return {"runs_with_other_numbers": len(others), "compiled_anew": seen.count}


def checks_of(sizes: Sizes) -> list[Check]:
    """Both of the training step and of the sampler."""
    calls_of = {"training step": _step_calls, "guided samples by Heun": _sampler_calls}
    built = {name: functools.cache(functools.partial(build, sizes.repeated)) for name, build in calls_of.items()}

    def twice(name: str) -> dict[str, Value]:
        program, calls = built[name]()
        return same_bits(program, jax.device_put(calls[0]))

    def others(name: str) -> dict[str, Value]:
        return compiled_anew(*built[name]())

    return [
        *(Check(GROUP, f"{name}, twice", functools.partial(twice, name), LATEST) for name in built),
        *(
            Check(GROUP, f"{name}, other w, t, seed and data", functools.partial(others, name), LATEST)
            for name in built
        ),
    ]
