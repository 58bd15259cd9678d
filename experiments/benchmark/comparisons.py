"""Comparisons: the implementations of each workload and method by name; the others are held to the first."""

import itertools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cfgjax import training
from experiments.benchmark import in_cfgjax, peers, prepared, reference, timed_functions
from experiments.benchmark.timed_functions import Skipped, TimedFunction
from experiments.benchmark.workloads import (
    SCALE,
    Case,
    Inputs,
    Workload,
    compiler_options,
    inputs_of,
    workload_of,
)

Build = Callable[[], TimedFunction | Skipped]

Method = Literal["train", "euler", "heun", "dpm_solver", "euler_maruyama", "interval", "scales", "sweep"]
METHODS: dict[Method, str] = {
    "train": "training steps: AdamW, moving average, labels dropped",
    "euler": "guided samples by Euler",
    "heun": "guided samples by Heun",
    "dpm_solver": "guided samples by DPM-Solver++(2M)",
    "euler_maruyama": "guided samples by Euler-Maruyama",
    "interval": "guided samples by Euler, guided on half of the steps",
    "scales": "guided samples by Euler, a scale for each example",
    "sweep": "guided samples by Euler at many scales",
}
REJITTED = 2
"""How many of the scales are compiled anew and timed; each costs the same."""

PLAIN, LIBRARY, DIFFRAX = "plain JAX", "cfgjax", "diffrax"
HACKABLE = "hackable_diffusion"
EAGER, COMPILED = "flow_matching", "flow_matching + torch.compile"
WHOLE = "cfgjax, whole batch at once"
ON_ONE_CORE = "cfgjax, batched products on one core"
BY_STEP = "cfgjax, a dispatch a step"
LOOPED = "Python loop over a pmapped step"
AS_ODE = "cfgjax, Euler"
GUIDED = "cfgjax, guided everywhere"
BY_SCALE, REJIT = "cfgjax, a call a scale", "cfgjax, compiled for each scale"


def _library(
    work: Workload, method: str, inputs: Inputs, chunk: int | None, scale: Any = None, options: Any = None
) -> TimedFunction:
    draw = in_cfgjax.draw_of(work, method, prepared.times_of(work, method))
    return prepared.sampler(work, in_cfgjax.sampler_of(draw, chunk), method, inputs, scale, options)


def _looped(work: Workload, inputs: Inputs) -> TimedFunction:
    """What the pmapped loop of many a codebase costs: time and state replicated, one dispatch a step."""
    guided, ts = reference.guided_of(work), prepared.times_of(work, "euler")
    step = jax.pmap(
        lambda weights, x, t, t_next, y: x + (t_next - t) * guided(weights, x, t, y, jnp.float32(SCALE)),
        in_axes=(None, 0, 0, 0, 0),
    )
    count = jax.local_device_count()
    noise, labels = training.shard((inputs.noise, inputs.labels), count)
    weights = training.replicate(inputs.weights)

    def run() -> np.ndarray:
        x = jnp.asarray(noise)
        for t, t_next in itertools.pairwise(ts):
            x = step(weights, x, np.full(count, t), np.full(count, t_next), labels)
        return np.asarray(x).reshape(inputs.noise.shape)

    return timed_functions.eager(run, work.batch, 2 * work.evaluations, is_exact=True)


def _trainer(
    work: Workload, inputs: Inputs, num_microbatches: int, steps_per_dispatch: int, options: Any = None
) -> TimedFunction:
    optimizer = optax.adamw(1e-4)
    program = training.pmapped(training.multi_step(in_cfgjax.train_step_of(work, optimizer, num_microbatches)))
    state, batches, source = in_cfgjax.train_inputs(work, inputs, optimizer, steps_per_dispatch)
    calls = work.train_steps // steps_per_dispatch
    options = compiler_options(work) if options is None else options
    return timed_functions.training(
        program, state, (batches, source), work.train_batch * work.train_steps, calls, options
    )


def _training(work: Workload, inputs: Inputs, with_peers: bool) -> dict[str, Build]:
    every, chunks = work.train_steps, work.train_chunks
    builds: dict[str, Build] = {
        PLAIN: lambda: prepared.reference_trainer(work, inputs, reference.loss_of(work)),
        LIBRARY: lambda: _trainer(work, inputs, chunks, every),
    }
    if every > 1:
        builds[BY_STEP] = lambda: _trainer(work, inputs, chunks, 1)
    if chunks > 1:
        builds[WHOLE] = lambda: _trainer(work, inputs, 1, every)
    if compiler_options(work):
        builds[ON_ONE_CORE] = lambda: _trainer(work, inputs, chunks, every, options={})
    if with_peers:
        builds[EAGER] = lambda: peers.torch_trainer(work, inputs, compiles=False)
        builds[COMPILED] = lambda: peers.torch_trainer(work, inputs, compiles=True)
        builds[HACKABLE] = lambda: peers.hackable_trainer(work, inputs)
    return builds


def _sampling(work: Workload, inputs: Inputs, method: str, with_peers: bool) -> dict[str, Build]:
    builds: dict[str, Build] = {
        PLAIN: lambda: prepared.reference_sampler(work, method, inputs),
        LIBRARY: lambda: _library(work, method, inputs, work.sample_chunk),
    }
    if work.sample_chunk:
        builds[WHOLE] = lambda: _library(work, method, inputs, None)
    if compiler_options(work):
        builds[ON_ONE_CORE] = lambda: _library(work, method, inputs, work.sample_chunk, options={})
    if method == "euler_maruyama":
        builds[AS_ODE] = lambda: _library(work, "euler", inputs, work.sample_chunk)
    if with_peers:
        builds[DIFFRAX] = lambda: peers.diffrax(work, method, inputs)
        builds[EAGER] = lambda: peers.torch_sampler(work, method, inputs, compiles=False)
        builds[COMPILED] = lambda: peers.torch_sampler(work, method, inputs, compiles=True)
        builds[HACKABLE] = lambda: peers.hackable_sampler(work, method, inputs)
        if method == "euler":
            builds[LOOPED] = lambda: _looped(work, inputs)
    return builds


def _interval(work: Workload, inputs: Inputs, with_peers: bool) -> dict[str, Build]:
    ts = prepared.times_of(work, "euler")
    first, last = len(ts) // 4, len(ts) // 4 + (len(ts) - 1) // 2
    ends = float(ts[first]), float(ts[last])
    draw = in_cfgjax.draw_of(work, "euler", ts, ends)
    evaluations = len(ts) - 1 + last - first

    def half() -> TimedFunction:
        program = jax.jit(in_cfgjax.sampler_of(draw, work.sample_chunk), compiler_options=compiler_options(work))
        return timed_functions.sampling(program, prepared.arguments_of(inputs), work.batch, evaluations, is_exact=False)

    builds: dict[str, Build] = {GUIDED: lambda: _library(work, "euler", inputs, work.sample_chunk), LIBRARY: half}
    if with_peers:
        builds[HACKABLE] = lambda: peers.hackable_sampler(work, "interval", inputs, ends=ends)
    return builds


def _scales(work: Workload, inputs: Inputs, with_peers: bool) -> dict[str, Build]:
    scales = np.linspace(0, 2 * SCALE, work.batch, dtype=np.float32)
    spread = scales.reshape(-1, *(1 for _ in work.shape))
    builds: dict[str, Build] = {
        PLAIN: lambda: prepared.reference_sampler(work, "euler", inputs, spread),
        LIBRARY: lambda: _library(work, "euler", inputs, work.sample_chunk, scales),
    }
    if with_peers:
        builds[HACKABLE] = lambda: peers.hackable_sampler(work, "euler", inputs, spread)
    return builds


def _sweep(work: Workload, inputs: Inputs, num_scales: int) -> dict[str, Build]:
    each = max(1, work.batch // num_scales)
    few = inputs._replace(noise=inputs.noise[:each], labels=inputs.labels[:each])
    scales = np.linspace(1, 1 + SCALE, num_scales, dtype=np.float32)
    draw = in_cfgjax.draw_of(work, "euler", prepared.times_of(work, "euler"))
    chunk, total, evaluations = work.sample_chunk, num_scales * each, 2 * work.evaluations

    def one_call() -> TimedFunction:
        program = jax.jit(in_cfgjax.sweep_of(draw, chunk or 8192), compiler_options=compiler_options(work))
        return timed_functions.sampling(program, prepared.arguments_of(few, scales), total, evaluations, is_exact=True)

    def by_scale() -> TimedFunction:
        program = jax.jit(in_cfgjax.sampler_of(draw, chunk), compiler_options=compiler_options(work))
        executable, trace_seconds, compile_seconds = timed_functions.compiled(program, *prepared.arguments_of(few))
        calls = [jax.device_put(prepared.arguments_of(few, scale)) for scale in scales]

        def run() -> np.ndarray:
            return np.stack(jax.device_get([executable(*call) for call in calls]))

        return TimedFunction(run, total, evaluations, trace_seconds, compile_seconds, run())

    def anew() -> TimedFunction:
        def run() -> None:
            for scale in scales[:REJITTED]:
                program = jax.jit(
                    lambda *args, scale=scale: in_cfgjax.sampler_of(draw, chunk)(*args, jnp.float32(scale))
                )
                jax.block_until_ready(program(*prepared.arguments_of(few)[:-1]))

        return TimedFunction(run, REJITTED * each, evaluations, note=f"timed on {REJITTED} of {num_scales} scales")

    return {BY_SCALE: by_scale, LIBRARY: one_call, REJIT: anew}


def implementations_of(case: Case, with_peers: bool) -> dict[str, Build]:
    """The implementations of a case; each is built when it is called."""
    work = workload_of(case)
    inputs = inputs_of(work)
    match case.method:
        case "train":
            return _training(work, inputs, with_peers)
        case "interval":
            return _interval(work, inputs, with_peers)
        case "scales":
            return _scales(work, inputs, with_peers)
        case "sweep":
            return _sweep(work, inputs, case.num_scales)
    return _sampling(work, inputs, case.method, with_peers)
