"""Measure what one compiled sweep and an interval save: in wall time, on this machine.

The sweep: scales x intervals x diffusions x labels in one call, against one call for each point with numbers traced,
and with numbers compiled in. The interval: Heun's rule with guidance on all, a half, a quarter, and none of the steps.
Networks are the presets' own, with random parameters; rounds of the competitors are interleaved.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import guidance, paths, solvers, sweeps
from cfgjax.types import Array, LabelledField
from experiments import command
from experiments.command import UserError
from experiments.model import network_of
from experiments.presets import PRESETS

PATH = paths.linear()
NUM_LABELS = 8


@dataclass(frozen=True)
class Options:
    """How much to measure."""

    num_scales: int = 16
    """Guidance scales of the sweep."""
    num_seeds: int = 8
    """Samples at each of its points."""
    num_steps: int = 32
    """Solver steps from noise to data."""
    num_compiled: int = 8
    """Points that are compiled each by itself; their mean stands for all."""
    num_rounds: int = 5
    """Rounds whose median is printed."""


def _field(preset: str, shape: tuple[int, ...], num_labels: int) -> LabelledField:
    """A preset's network with random parameters."""
    network: Any = network_of(PRESETS[preset][1], num_labels)
    x, t, y = jnp.zeros(shape), jnp.zeros(()), jnp.zeros((), jnp.int32)
    params = jax.jit(network.init)(jax.random.key(0), x, t, y)
    return lambda x, t, y: network.apply(params, x, t, y)


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def _draw(
    field: LabelledField, num_steps: int, scale: Array, ends: tuple[Array, Array], strength: Array, y: Array, key: Array
) -> Array:
    guided = guidance.classifier_free(field, guidance.interval(scale, *ends), NUM_LABELS)
    diffusion = solvers.root_beta(PATH, strength)
    solver = solvers.euler_maruyama(PATH, guidance.given(guided, y), diffusion)
    noise_key, solver_key = jax.random.split(key)
    ts = jnp.linspace(0, 1, num_steps + 1)
    return solvers.integrate(solver, solver_key, jax.random.normal(noise_key, (2,)), ts)


def _sweep(options: Options) -> None:
    traces, field = [], _field("mixture", (2,), NUM_LABELS)

    def draw(*point: Any) -> Array:
        traces.append(1)
        return _draw(field, options.num_steps, *point)

    scales = np.linspace(0.5, 8, options.num_scales, dtype=np.float32)
    starts, stops = np.array([0, 0, 0.25, 0.5], np.float32), np.array([0.5, 1, 0.75, 1], np.float32)
    strengths, labels = np.array([0.5, 1, 1.5], np.float32), np.arange(NUM_LABELS, dtype=np.int32)
    keys = jax.random.split(jax.random.key(0), options.num_seeds)
    axes = scales, (starts, stops), strengths, labels, keys
    points = list(itertools.product(scales, zip(starts, stops, strict=True), strengths, labels))

    whole = jax.jit(lambda *axes: sweeps.sweep(draw, *axes))
    first = _seconds(lambda: whole(*axes))
    traced = len(traces)
    one = jax.jit(jax.vmap(draw, in_axes=(None, None, None, None, 0)))
    one_first = _seconds(lambda: one(*points[0], keys))

    def loop() -> list[Array]:
        return [one(*point, keys) for point in points]

    def compiled(point: Any) -> Array:
        return jax.jit(jax.vmap(lambda key: draw(*point, key)))(keys)

    rounds = np.array([[_seconds(lambda: whole(*axes)), _seconds(loop)] for _ in range(options.num_rounds)])
    chosen = points[:: max(1, len(points) // options.num_compiled)][: options.num_compiled]
    each = np.mean([_seconds(partial(compiled, point)) for point in chosen])
    (together, apart), ratio = np.median(rounds, axis=0), np.median(rounds[:, 1] / rounds[:, 0])
    print(f"{len(points)} points x {options.num_seeds} samples, {options.num_steps} steps, the mixture's network")
    print(f"  one call                  {together:8.2f} s   first call {first:.2f} s, traces of the draw: {traced}")
    print(f"  loop, numbers traced      {apart:8.2f} s   first call {one_first:.2f} s; {ratio:.2f} times one call")
    total = each * len(points)
    print(
        f"  loop, numbers compiled in {total:8.0f} s   ({each:.2f} s a point, mean of {len(chosen)}); "
        f"{total / together:.0f} times one call, {total / first:.0f} times its first"
    )


def _intervals(name: str, preset: str, shape: tuple[int, ...], num_labels: int, batch: int, options: Options) -> None:
    field, num_steps = _field(preset, shape, num_labels), options.num_steps
    ts = np.linspace(0, 1, num_steps + 1, dtype=np.float32)
    noise = jax.random.normal(jax.random.key(0), (batch, *shape))
    labels = jnp.arange(batch) % num_labels

    def build(scale: Any) -> Callable[[LabelledField], Any]:
        return lambda field: solvers.heun(guidance.given(guidance.classifier_free(field, scale, num_labels), 0))

    def compiled(scale: Any) -> Callable[[], Array]:
        guided = field if scale is None else guidance.classifier_free(field, scale, num_labels)

        def draw(x: Array, y: Array) -> Array:
            return solvers.integrate(solvers.heun(guidance.given(guided, y)), jax.random.key(0), x, ts)

        run = jax.jit(jax.vmap(draw))
        jax.block_until_ready(run(noise, labels))
        return lambda: run(noise, labels)

    half, quarter = guidance.interval(3.0, 0.25, 0.75), guidance.interval(3.0, 0.5, 0.75)
    scales = {"all": 3.0, "half": half, "quarter": quarter, "none (labelled alone)": None}
    calls = [compiled(scale) for scale in scales.values()]
    rounds = np.array([[_seconds(call) for call in calls] for _ in range(options.num_rounds)])
    print(f"\n{name}, batch {batch}, {num_steps} steps of Heun's rule; guided steps, evaluations, median time, ratio")
    for index, (words, scale) in enumerate(scales.items()):
        count = 2 * num_steps if scale is None else solvers.evaluations(build(scale), field, noise[0], ts).sum()
        ratio = np.median(rounds[:, index] / rounds[:, 0])
        seconds = np.median(rounds[:, index])
        print(f"  {words:22s} {count:4d} ({count / (4 * num_steps):.2f})  {seconds:7.3f} s  {ratio:.2f}")


def measure(options: Options) -> None:
    """Prints all."""
    for name in ("num_scales", "num_seeds", "num_steps", "num_compiled", "num_rounds"):
        if getattr(options, name) < 1:
            raise UserError(f"{name} must be at least 1, got {getattr(options, name)}")
    device = jax.devices()[0]
    print(f"{device.device_kind}, jax {jax.__version__}")
    _sweep(options)
    _intervals("perceptron in 2-D", "mixture", (2,), NUM_LABELS, 1024, options)
    _intervals("transformer of 28 x 28 pixels", "fashion_mnist", (28, 28, 1), 10, 16, options)


def main(args: list[str] | None = None) -> None:
    """The command line."""
    command.main(measure, Options, "experiments.savings", __doc__, args)


if __name__ == "__main__":
    main()
