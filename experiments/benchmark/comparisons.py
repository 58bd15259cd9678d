"""Comparisons: the implementations of each workload and method by name; the others are held to the first."""

import importlib.util
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cfgjax import training
from experiments.benchmark import in_cfgjax, reference, timed_functions
from experiments.benchmark.timed_functions import Skipped, TimedFunction
from experiments.benchmark.workloads import (
    SCALE,
    Case,
    Inputs,
    Workload,
    compiler_options,
    grid,
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
EAGER, COMPILED = "flow_matching", "flow_matching + torch.compile"
WHOLE = "cfgjax, whole batch at once"
ON_ONE_CORE = "cfgjax, batched products on one core"
BY_STEP = "cfgjax, a dispatch a step"
LOOPED = "Python loop over a pmapped step"
AS_ODE = "cfgjax, Euler"
GUIDED = "cfgjax, guided everywhere"
BY_SCALE, REJIT = "cfgjax, a call a scale", "cfgjax, compiled for each scale"


def times_of(work: Workload, method: str) -> np.ndarray:
    """The grid on which a method makes the work's number of evaluations."""
    return grid(max(1, work.evaluations // reference.EVALUATIONS.get(method, 1)))


def arguments_of(inputs: Inputs, scale: Any = None) -> tuple:
    """What every sampler in JAX is given: weights, key, noise, labels, scale."""
    scale = jnp.float32(SCALE) if scale is None else scale
    return inputs.weights, jax.random.key(0), inputs.noise, inputs.labels, scale


def _solved(
    work: Workload, program: Callable, method: str, inputs: Inputs, scale: Any = None, options: Any = None
) -> TimedFunction:
    is_exact = method != "euler_maruyama"
    program = jax.jit(program, compiler_options=compiler_options(work) if options is None else options)
    return timed_functions.sampling(program, arguments_of(inputs, scale), work.batch, 2 * work.evaluations, is_exact)


def _plain(work: Workload, method: str, inputs: Inputs, scale: Any = None) -> TimedFunction:
    ts = jnp.asarray(times_of(work, method))
    program = partial(reference.sampler_of(work, method, work.sample_chunk), ts=ts)
    return _solved(work, program, method, inputs, scale)


def _library(
    work: Workload, method: str, inputs: Inputs, chunk: int | None, scale: Any = None, options: Any = None
) -> TimedFunction:
    draw = in_cfgjax.draw_of(work, method, times_of(work, method))
    return _solved(work, in_cfgjax.sampler_of(draw, chunk), method, inputs, scale, options)


def _diffrax(work: Workload, method: str, inputs: Inputs) -> TimedFunction | Skipped:
    if importlib.util.find_spec("diffrax") is None:
        return Skipped("diffrax is not installed")
    from experiments.benchmark import in_diffrax

    if method not in in_diffrax.SOLVERS:
        return Skipped("diffrax has no such solver")
    return _solved(work, in_diffrax.sampler_of(work, method, times_of(work, method)), method, inputs)


def _torch(work: Workload) -> Any:
    """The module of the PyTorch implementations, or why the work has none."""
    for name in ("torch", "flow_matching"):
        if importlib.util.find_spec(name) is None:
            return Skipped(f"{name} is not installed")
    peer = importlib.import_module("experiments.benchmark.in_torch")
    return peer if type(work.network) in peer.NETWORKS else Skipped("there is no such network in PyTorch here")


def _torch_sampler(work: Workload, method: str, inputs: Inputs, compiles: bool) -> TimedFunction | Skipped:
    peer = _torch(work)
    if isinstance(peer, Skipped):
        return peer
    if method not in peer.METHODS:
        return Skipped("flow_matching has no such solver")
    run = peer.sampler_of(work, inputs, method, times_of(work, method), compiles)
    return timed_functions.eager(run, work.batch, 2 * work.evaluations, is_exact=True)


def _torch_trainer(work: Workload, inputs: Inputs, compiles: bool) -> TimedFunction | Skipped:
    peer = _torch(work)
    if isinstance(peer, Skipped):
        return peer
    run = peer.trainer_of(work, inputs, compiles)
    return timed_functions.eager(run, work.train_batch * work.train_steps, 3, is_exact=False)


def _looped(work: Workload, inputs: Inputs) -> TimedFunction:
    """What the pmapped loop of many a codebase costs: time and state replicated, one dispatch a step."""
    guided, ts = reference.guided_of(work), times_of(work, "euler")
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


def _plain_trainer(work: Workload, inputs: Inputs) -> TimedFunction:
    optimizer = optax.adamw(1e-4)
    weights = jax.tree.map(jnp.array, inputs.weights)
    state = (weights, optimizer.init(weights), jax.tree.map(jnp.copy, weights), jax.random.key(0))
    steps = reference.train_step_of(work, optimizer, work.train_chunks, work.train_steps)
    program = jax.jit(steps, donate_argnums=0)
    data = jax.device_put((inputs.data, inputs.data_labels))
    return timed_functions.training(
        program, state, data, work.train_batch * work.train_steps, 1, compiler_options(work)
    )


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


def _training(work: Workload, inputs: Inputs, peers: bool) -> dict[str, Build]:
    every, chunks = work.train_steps, work.train_chunks
    builds: dict[str, Build] = {
        PLAIN: lambda: _plain_trainer(work, inputs),
        LIBRARY: lambda: _trainer(work, inputs, chunks, every),
    }
    if every > 1:
        builds[BY_STEP] = lambda: _trainer(work, inputs, chunks, 1)
    if chunks > 1:
        builds[WHOLE] = lambda: _trainer(work, inputs, 1, every)
    if compiler_options(work):
        builds[ON_ONE_CORE] = lambda: _trainer(work, inputs, chunks, every, options={})
    if peers:
        builds[EAGER] = lambda: _torch_trainer(work, inputs, compiles=False)
        builds[COMPILED] = lambda: _torch_trainer(work, inputs, compiles=True)
    return builds


def _sampling(work: Workload, inputs: Inputs, method: str, peers: bool) -> dict[str, Build]:
    builds: dict[str, Build] = {
        PLAIN: lambda: _plain(work, method, inputs),
        LIBRARY: lambda: _library(work, method, inputs, work.sample_chunk),
    }
    if work.sample_chunk:
        builds[WHOLE] = lambda: _library(work, method, inputs, None)
    if compiler_options(work):
        builds[ON_ONE_CORE] = lambda: _library(work, method, inputs, work.sample_chunk, options={})
    if method == "euler_maruyama":
        builds[AS_ODE] = lambda: _library(work, "euler", inputs, work.sample_chunk)
    if peers:
        builds[DIFFRAX] = lambda: _diffrax(work, method, inputs)
        builds[EAGER] = lambda: _torch_sampler(work, method, inputs, compiles=False)
        builds[COMPILED] = lambda: _torch_sampler(work, method, inputs, compiles=True)
        builds["hackable_diffusion"] = lambda: Skipped("it is not timed")
        if method == "euler":
            builds[LOOPED] = lambda: _looped(work, inputs)
    return builds


def _interval(work: Workload, inputs: Inputs) -> dict[str, Build]:
    ts = times_of(work, "euler")
    first, last = len(ts) // 4, len(ts) // 4 + (len(ts) - 1) // 2
    draw = in_cfgjax.draw_of(work, "euler", ts, (float(ts[first]), float(ts[last])))
    evaluations = len(ts) - 1 + last - first

    def half() -> TimedFunction:
        program = jax.jit(in_cfgjax.sampler_of(draw, work.sample_chunk), compiler_options=compiler_options(work))
        return timed_functions.sampling(program, arguments_of(inputs), work.batch, evaluations, is_exact=False)

    return {GUIDED: lambda: _library(work, "euler", inputs, work.sample_chunk), LIBRARY: half}


def _scales(work: Workload, inputs: Inputs) -> dict[str, Build]:
    scales = np.linspace(0, 2 * SCALE, work.batch, dtype=np.float32)
    spread = scales.reshape(-1, *(1 for _ in work.shape))
    return {
        PLAIN: lambda: _plain(work, "euler", inputs, spread),
        LIBRARY: lambda: _library(work, "euler", inputs, work.sample_chunk, scales),
    }


def _sweep(work: Workload, inputs: Inputs, num_scales: int) -> dict[str, Build]:
    each = max(1, work.batch // num_scales)
    few = inputs._replace(noise=inputs.noise[:each], labels=inputs.labels[:each])
    scales = np.linspace(1, 1 + SCALE, num_scales, dtype=np.float32)
    draw = in_cfgjax.draw_of(work, "euler", times_of(work, "euler"))
    chunk, total, evaluations = work.sample_chunk, num_scales * each, 2 * work.evaluations

    def one_call() -> TimedFunction:
        program = jax.jit(in_cfgjax.sweep_of(draw, chunk or 8192), compiler_options=compiler_options(work))
        return timed_functions.sampling(program, arguments_of(few, scales), total, evaluations, is_exact=True)

    def by_scale() -> TimedFunction:
        program = jax.jit(in_cfgjax.sampler_of(draw, chunk), compiler_options=compiler_options(work))
        executable, trace_seconds, compile_seconds = timed_functions.compiled(program, *arguments_of(few))
        calls = [jax.device_put(arguments_of(few, scale)) for scale in scales]

        def run() -> np.ndarray:
            return np.stack(jax.device_get([executable(*call) for call in calls]))

        return TimedFunction(run, total, evaluations, trace_seconds, compile_seconds, run())

    def anew() -> TimedFunction:
        def run() -> None:
            for scale in scales[:REJITTED]:
                program = jax.jit(
                    lambda *args, scale=scale: in_cfgjax.sampler_of(draw, chunk)(*args, jnp.float32(scale))
                )
                jax.block_until_ready(program(*arguments_of(few)[:-1]))

        return TimedFunction(run, REJITTED * each, evaluations, note=f"timed on {REJITTED} of {num_scales} scales")

    return {BY_SCALE: by_scale, LIBRARY: one_call, REJIT: anew}


def implementations_of(case: Case, peers: bool) -> dict[str, Build]:
    """The implementations of a case; each is built when it is called."""
    work = workload_of(case)
    inputs = inputs_of(work)
    match case.method:
        case "train":
            return _training(work, inputs, peers)
        case "interval":
            return _interval(work, inputs)
        case "scales":
            return _scales(work, inputs)
        case "sweep":
            return _sweep(work, inputs, case.num_scales)
    return _sampling(work, inputs, case.method, peers)
