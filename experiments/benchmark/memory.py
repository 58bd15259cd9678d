"""The most memory that one implementation takes while it runs, measured in a process of its own."""

import ctypes
import gc
import importlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.benchmark import comparisons
from experiments.benchmark.timed_functions import Skipped
from experiments.benchmark.workloads import Case

_IMPORTS = {
    comparisons.EAGER: ("torch", "flow_matching.solver"),
    comparisons.COMPILED: ("torch", "flow_matching.solver", "torch._dynamo", "torch._inductor.compile_fx"),
    comparisons.DIFFRAX: ("diffrax",),
    comparisons.HACKABLE: ("hackable_diffusion.lib.sampling", "hackable_diffusion.lib.training.time_sampling"),
}
"""What an implementation imports, some of it only when it is first used."""

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def _status(name: str) -> int:
    """A line of /proc/self/status that is in kB, in bytes."""
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return 1024 * int(lines[name].split()[0])


def _settle() -> None:
    """Gives back what is free, and forgets the most memory so far, where Linux can."""
    if not _RESET.exists():
        return
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    _RESET.write_text("5")


def _most_on_device(is_torch: bool) -> int:
    if is_torch:
        return int(importlib.import_module("torch").cuda.max_memory_allocated())
    statistics: Any = jax.local_devices()[0].memory_stats()
    return int(statistics["peak_bytes_in_use"])


def most_of(build: Callable[[], Callable[[], Any] | None], imports: Iterable[str], is_torch: bool) -> int | None:
    """Bytes, in this process, which should have done nothing else; None where it is not known.

    On a CPU the resident memory beyond that after the imports: weights, inputs, compiled code and working memory, at
    the highest point of a second run. On an accelerator its own statistics.

    Args:
        build: makes what is run, or None where it cannot be.
        imports: what is imported before, where it is installed.
        is_torch: whether PyTorch computes.
    """
    for name in imports:
        if importlib.util.find_spec(name.partition(".")[0]):
            importlib.import_module(name)
    jax.block_until_ready(jnp.zeros(()))
    is_on_cpu = jax.default_backend() == "cpu"
    if is_on_cpu and not _RESET.exists():
        return None
    _settle()
    before = _status("VmRSS") if is_on_cpu else 0
    run = build()
    if run is None:
        return None
    run()
    _settle()
    run()
    return _status("VmHWM") - before if is_on_cpu else _most_on_device(is_torch)


def measure(case: Case, implementation: str) -> int | None:
    """``most_of`` an implementation of a case."""

    def build() -> Callable[[], Any] | None:
        function = comparisons.implementations_of(case, with_peers=True)[implementation]()
        return None if isinstance(function, Skipped) else function.run

    is_torch = implementation in (comparisons.EAGER, comparisons.COMPILED)
    return most_of(build, _IMPORTS.get(implementation, ()), is_torch)


def of_implementation(case: Case, implementation: str) -> int | None:
    """``measure`` in a process of its own; None where it fails."""
    request = json.dumps([case, implementation])
    done = subprocess.run([sys.executable, "-m", __name__, request], capture_output=True, text=True, check=False)
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


if __name__ == "__main__":
    case, implementation = json.loads(sys.argv[1])
    print(json.dumps(measure(Case(*case), implementation)))
