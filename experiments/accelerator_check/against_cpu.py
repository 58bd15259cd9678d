"""Fields, guided samples, gradients and training steps of small networks against the CPU's in float32."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cfgjax import training
from cfgjax.types import Array, Tree
from experiments.accelerator_check import device
from experiments.accelerator_check.checks import Check
from experiments.accelerator_check.inputs import inputs_of
from experiments.accelerator_check.rows import Value
from experiments.accelerator_check.sizes import Sizes
from experiments.benchmark import in_cfgjax, prepared
from experiments.benchmark.timed_functions import Skipped
from experiments.benchmark.workloads import Inputs, Workload

GROUP = "Against the CPU's float32"
PRECISIONS = ("default", "highest")
"""Of products of matrices in float32."""
LATEST = 0.4
ON_CPU = {"xla_backend_optimization_level": "1", "xla_llvm_disable_expensive_passes": "True"}
"""Compiler options there: less time to compile, as each program runs once."""

Program = Callable[[Inputs], dict[str, Tree]]
"""Numbers that are the same on both devices -> what is compared, by name."""


def _field_of(work: Workload) -> Program:
    network: Any = work.network

    def field(inputs: Inputs) -> dict[str, Tree]:
        ts = jnp.linspace(0.02, 0.98, work.batch)
        return {"": jax.vmap(network.apply, (None, 0, 0, 0))(inputs.weights, inputs.noise, ts, inputs.labels)}

    return field


def _samples_of(work: Workload, method: str) -> Program:
    draw = in_cfgjax.sampler_of(in_cfgjax.draw_of(work, method, prepared.times_of(work, method)), None)
    return lambda inputs: {"": draw(*prepared.arguments_of(inputs))}


def _step_of(work: Workload) -> Program:
    """The gradient of the loss and what one step of AdamW adds to the parameters."""
    optimizer, loss = optax.adamw(1e-4), in_cfgjax.loss_of(work)
    step, gradient_of = training.make_step(loss, optimizer, 0.999), training.make_value_and_grad(loss)

    def one_step(inputs: Inputs) -> dict[str, Tree]:
        state = training.init_state(inputs.weights, optimizer, jax.random.key(0))
        batch = inputs.data, inputs.data_labels
        value, gradient = gradient_of(state, batch)
        later, _ = step(state, batch)
        return {"loss": value, "gradient": gradient, "update": jax.tree.map(jnp.subtract, later.params, state.params)}

    return one_step


def programs_of(work: Workload) -> dict[str, Program]:
    """What is compared of a network, by name."""
    return {
        "field": _field_of(work),
        "guided samples by Heun": _samples_of(work, "heun"),
        "guided samples by Euler-Maruyama": _samples_of(work, "euler_maruyama"),
        "gradient and training step": _step_of(work),
    }


def errors(found: Tree, expected: Tree) -> tuple[float, float]:
    """||found - expected|| / ||expected|| of all numbers of a tree together, and the largest difference likewise.

    >>> errors({"a": np.array([3.0, 4.5])}, {"a": np.array([3.0, 4.0])})
    (0.1, 0.125)
    """
    ours, theirs = (
        np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree)])
        for tree in (found, expected)
    )
    difference = ours - theirs
    return (
        float(np.linalg.norm(difference) / np.linalg.norm(theirs)),
        float(np.max(np.abs(difference)) / np.max(np.abs(theirs))),
    )


def compared(found: dict[str, Tree], expected: dict[str, Tree]) -> dict[str, Value]:
    """The errors of each part, by name."""
    values: dict[str, Value] = {}
    for part, tree in found.items():
        start = f"{part}_" if part else ""
        values[f"{start}error"], values[f"{start}largest_error"] = errors(tree, expected[part])
    return values


def _checks_of(name: str, work: Workload, cpu: jax.Device) -> list[Check]:
    inputs, programs = functools.cache(lambda: inputs_of(work)), programs_of(work)

    @functools.cache
    def on_cpu(kind: str) -> dict[str, Array]:
        with jax.default_device(cpu):
            return jax.device_get(jax.jit(programs[kind], compiler_options=ON_CPU)(inputs()))

    def compare(kind: str, precision: str) -> dict[str, Value]:
        expected = on_cpu(kind)
        with jax.default_matmul_precision(precision):
            found = jax.device_get(jax.jit(programs[kind])(inputs()))
        return compared(found, expected)

    return [
        Check(GROUP, f"{name}, {kind}, precision {precision}", functools.partial(compare, kind, precision), LATEST)
        for precision in PRECISIONS
        for kind in programs
    ]


def checks_of(sizes: Sizes) -> list[Check]:
    """All comparisons, or one check that tells why there are none."""
    cpu = device.cpu()
    if cpu is None:
        reason = "JAX has no CPU backend here: unset JAX_PLATFORMS, or add cpu to it"
        return [Check(GROUP, "all networks", lambda: Skipped(reason), LATEST)]
    return [check for name, work in sizes.compared.items() for check in _checks_of(name, work, cpu)]
