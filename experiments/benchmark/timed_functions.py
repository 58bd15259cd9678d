"""Functions to time, and how JAX programs are made ready for it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np


@dataclass(frozen=True)
class TimedFunction:
    """An implementation, ready to run.

    Attributes:
        run: runs once and waits for the result.
        examples: samples or training examples that one run makes.
        evaluations: of the network, forward, for one example; an evaluation of the guided field is two, and a training
            example's forward and backward pass three.
        trace_seconds: spent before the first run.
        compile_seconds: likewise.
        output: what its run makes, where it is the same for all implementations.
        note: what a reader should know.
    """

    run: Callable[[], Any]
    examples: int
    evaluations: float
    trace_seconds: float = 0.0
    compile_seconds: float = 0.0
    output: np.ndarray | None = None
    note: str = ""


@dataclass(frozen=True)
class Skipped:
    """An implementation that cannot be timed, and why."""

    reason: str


def compiled(program: Any, *args: Any, options: Any = None) -> tuple[Any, float, float]:
    """(the compiled program, seconds of tracing, seconds of compiling) of a jitted or pmapped function."""
    start = time.perf_counter()
    lowered = program.lower(*args)
    traced = time.perf_counter()
    executable = lowered.compile(compiler_options=options)
    return executable, traced - start, time.perf_counter() - traced


def sampling(program: Any, args: tuple, examples: int, evaluations: float, is_exact: bool) -> TimedFunction:
    """A jitted sampler; its output is compared where the method draws no noise."""
    executable, trace_seconds, compile_seconds = compiled(program, *args)
    args = jax.device_put(args)

    def run() -> Any:
        return jax.block_until_ready(executable(*args))

    output = np.asarray(run()) if is_exact else None
    return TimedFunction(run, examples, evaluations, trace_seconds, compile_seconds, output)


def training(program: Any, state: Any, args: tuple, examples: int, calls: int, options: Any) -> TimedFunction:
    """A training step (state, *args) -> (state, ...) whose state is donated, timed over so many calls."""
    executable, trace_seconds, compile_seconds = compiled(program, state, *args, options=options)
    held = [state]

    def run() -> Any:
        for _ in range(calls):
            held[0], _ = executable(held[0], *args)
        return jax.block_until_ready(held[0])

    run()
    return TimedFunction(run, examples, 3, trace_seconds, compile_seconds)


def eager(run: Callable[[], Any], examples: int, evaluations: float, is_exact: bool) -> TimedFunction:
    """A function that compiles, if it does, in its first run; the second run's time is subtracted."""
    start = time.perf_counter()
    run()
    first = time.perf_counter()
    output = run()
    compile_seconds = max(0.0, 2 * first - start - time.perf_counter())
    return TimedFunction(run, examples, evaluations, 0.0, compile_seconds, np.asarray(output) if is_exact else None)
