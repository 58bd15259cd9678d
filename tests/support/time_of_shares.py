"""A program for tests: what watching the hosts costs, their shares and heartbeats, in steps with and without it.

python -m tests.support.time_of_shares INDEX PORT MILLISECONDS SECONDS: steps of about so long, in blocks with and
without it by turns; it prints, as JSON, seconds of a step in each block with it and without it, and its processor's.
"""

import json
import os
import sys
import time

import jax
import numpy as np

from experiments.runtime import coordination, distributed
from experiments.runtime.distributed import Launch
from experiments.runtime.own_time import OwnTime, StallClock, _Sums

BLOCK = 2.0
"""Seconds of a block: several of the probes that there are at all."""

INTERVALS = 2
"""Lines of metrics in a block."""


def _steps(index):
    """A step of half a millisecond or more: products on the device, and a sum over the processes."""
    import jax.numpy as jnp

    def step(x, number):
        y = jax.lax.fori_loop(0, number, lambda _, y: jnp.matmul(y, x, precision=jax.lax.Precision.HIGHEST), x)
        return {"loss": jax.lax.psum(y[0, 0], "all")}

    mapped = jax.pmap(step, "all", in_axes=(0, None))
    x = np.full((1, 256, 256), 1 / 256, np.float32)
    return lambda number: mapped(x, number)


def _run(step, measured, any_true, number, num_steps):
    """An interval of the training loop, and its line."""
    row = {}
    for each in range(num_steps):
        metrics = step(number)
        with measured.waiting():
            jax.block_until_ready(metrics)
        if each == num_steps - 1:
            with measured.waiting():
                row = jax.device_get(metrics)
            row |= measured.end_interval(num_steps)
        with measured.waiting():
            any_true(False)
        with measured.left_out():
            pass
    return row


def _seconds(step):
    start = time.perf_counter()
    jax.block_until_ready(step(20))
    return time.perf_counter() - start


def _again(own_time):
    """The same once more after a pause, as if there had been none."""
    now = time.perf_counter()
    own_time._clock, own_time._sums, own_time._ended_at = StallClock(), _Sums(0, now), now
    return own_time


_SENDING = {name: getattr(coordination, name) for name in ("put", "get", "all_of")}
_SILENT = {"put": lambda key, text: None, "get": lambda key: None, "all_of": lambda folder: {}}


def _send(is_on):
    """Lets heartbeats travel, or not."""
    for name, work in (_SENDING if is_on else _SILENT).items():
        setattr(coordination, name, work)


def main(index, port, milliseconds, seconds):
    """Runs the program in this process."""
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[index]})
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 1)
    distributed.start(Launch(f"127.0.0.1:{port}", 2, index))
    step, any_true, without = _steps(index), distributed.AnyTrue(), OwnTime()
    without.close()
    without._is_on = False
    jax.block_until_ready(step(1))
    number = max(1, round(20 * milliseconds / 1000 / min(_seconds(step) for _ in range(40))))
    number = int(distributed.gathered(np.asarray([number]))[0])
    _run(step, without, any_true, number, 10)
    num_steps = max(1, round(BLOCK / INTERVALS / (milliseconds / 1000)))
    found, own_time = {"with": [], "without": []}, OwnTime()
    own_time.close()
    until, block = time.perf_counter() + seconds, 0
    while distributed.all_true(time.perf_counter() < until):
        block += 1
        for name in ("with", "without") if block % 2 else ("without", "with"):
            measured = _again(own_time) if name == "with" else without
            _send(name == "with")
            start = np.array([time.perf_counter(), time.process_time()])
            for _ in range(INTERVALS):
                _run(step, measured, any_true, number, num_steps)
            passed = np.array([time.perf_counter(), time.process_time()]) - start
            found[name].append((passed / INTERVALS / num_steps).tolist())
            measured.close()
    own_time.close()
    _send(True)
    sys.stderr.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *map(float, sys.argv[3:5]))
