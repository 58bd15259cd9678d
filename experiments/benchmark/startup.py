"""Compile time in a new process: with an empty cache of compiled programs, and once more with the one it left."""

import json
import os
import subprocess
import sys
import tempfile

import jax
import optax

from cfgjax import training
from experiments.benchmark import in_cfgjax, prepared, timed_functions
from experiments.benchmark.workloads import Case, WorkloadName, compiler_options, inputs_of, workload_of


def measure(work_name: WorkloadName) -> float:
    """Seconds, in this process, to compile the work's training step and its guided sampler by Euler."""
    work = workload_of(Case(work_name, "startup"))
    inputs, optimizer = inputs_of(work), optax.adamw(1e-4)
    step = training.pmapped(training.multi_step(in_cfgjax.train_step_of(work, optimizer, work.train_chunks)))
    state, batches, source = in_cfgjax.train_inputs(work, inputs, optimizer, work.train_steps)
    *_, of_step = timed_functions.compiled(step, state, batches, source, options=compiler_options(work))
    draw = in_cfgjax.draw_of(work, "euler", prepared.times_of(work, "euler"))
    program = jax.jit(in_cfgjax.sampler_of(draw, work.sample_chunk), compiler_options=compiler_options(work))
    *_, of_sampler = timed_functions.compiled(program, *prepared.arguments_of(inputs))
    return of_step + of_sampler


def cold_and_warm(work_name: WorkloadName) -> tuple[float, float]:
    """The seconds of two processes one after the other, the second of which finds the programs of the first.

    Raises:
        RuntimeError: a process that failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        kept = {
            "JAX_COMPILATION_CACHE_DIR": folder,
            "JAX_ENABLE_COMPILATION_CACHE": "true",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        return _run(work_name, kept), _run(work_name, kept)


def _run(work_name: str, environment: dict[str, str]) -> float:
    command = [sys.executable, "-m", __name__, work_name]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))  # pyrefly: ignore[bad-argument-type]
