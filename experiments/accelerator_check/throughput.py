"""Speed in bfloat16 beside a measured product of matrices, and the largest batch that fits."""

import functools
import gc
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import jax
import numpy as np
import optax

from cfgjax import training
from experiments.accelerator_check import device
from experiments.accelerator_check.checks import Budget, Check
from experiments.accelerator_check.inputs import inputs_of
from experiments.accelerator_check.rows import Value
from experiments.accelerator_check.sizes import HALF, Sizes
from experiments.benchmark import in_cfgjax, prepared, timed_functions, timing
from experiments.benchmark.rows import forward_flops
from experiments.benchmark.timed_functions import TimedFunction
from experiments.benchmark.workloads import Workload

T = TypeVar("T")
GROUP = "Speed"
TURNS = 3
"""Of which the fastest counts."""
_LACKS_MEMORY = "resource_exhausted", "out of memory"


@dataclass
class Found:
    """What later checks take from earlier ones.

    Attributes:
        product: FLOP/s of the matrix product on one device.
        batches: the examples of a training step on each device that fitted, by name.
        too_large: that did not.
        samples: that were drawn, by name.
    """

    product: float | None = None
    batches: dict[str, int] = field(default_factory=dict)
    too_large: dict[str, int] = field(default_factory=dict)
    samples: dict[str, np.ndarray] = field(default_factory=dict)


def lacks_memory(error: Exception) -> bool:
    """Whether a device had too little memory."""
    return any(words in str(error).lower() for words in _LACKS_MEMORY)


def first_that_fits(batch: int, build: Callable[[int], T]) -> tuple[int, T, int | None]:
    """(the batch, what ``build`` makes of it, the last that was too large), halved until the memory suffices."""
    too_large = None
    while True:
        try:
            return batch, build(batch), too_large
        except Exception as error:
            if batch == 1 or not lacks_memory(error):
                raise
        gc.collect()
        batch, too_large = batch // 2, batch


def speed(function: TimedFunction, work: Workload, found: Found, num_devices: int, turn_seconds: float) -> dict:
    """The rates of what is built, by the fastest of some turns, and its share of the matrix product's."""
    seconds = min(timing.repeat(function.run, turn_seconds) for _ in range(TURNS))
    flops = function.evaluations * function.examples * forward_flops(work)
    share = None if found.product is None else 100 * flops / seconds / num_devices / found.product
    return {
        "ms": 1e3 * seconds,
        "images_per_s": function.examples / seconds,
        "percent_of_product": share,
        "model_TFLOP": flops / 1e12,
    }


def _trainer(work: Workload, batch: int) -> TimedFunction:
    """The pmapped step over all local devices, with so many examples on each."""
    count = jax.local_device_count()
    work = work._replace(train_batch=batch * count)
    optimizer = optax.adamw(1e-4)
    program = training.pmapped(training.multi_step(in_cfgjax.train_step_of(work, optimizer, 1)))
    with jax.default_device(device.cpu()):  # made on the accelerator, the state would lie there twice for a while
        state, batches, source = in_cfgjax.train_inputs(work, inputs_of(work), optimizer, work.train_steps)
    examples = work.train_batch * work.train_steps
    return timed_functions.training(program, state, (batches, source), examples, 1, None)


def train(name: str, work: Workload, found: Found, turn_seconds: float) -> dict[str, Value]:
    """Training steps at the work's batch, or at the first half of it that fits."""
    batch, function, too_large = first_that_fits(work.train_batch, functools.partial(_trainer, work))
    found.batches[name] = batch
    if too_large is not None:
        found.too_large[name] = too_large
    count = jax.local_device_count()
    values = speed(function, work, found, count, turn_seconds)
    steps_per_s = 1e3 * work.train_steps / values["ms"]
    return {"batch_on_each_device": batch, "devices": count, "steps_per_s": steps_per_s, **values}


def sample(name: str, work: Workload, found: Found, turn_seconds: float) -> dict[str, Value]:
    """Guided samples by Heun on one device."""
    program = in_cfgjax.sampler_of(in_cfgjax.draw_of(work, "heun", prepared.times_of(work, "heun")), None)
    function = timed_functions.sampling(
        jax.jit(program), prepared.arguments_of(inputs_of(work)), work.batch, 2 * work.evaluations, is_exact=True
    )
    found.samples[name] = np.asarray(function.output)
    values = speed(function, work, found, 1, turn_seconds)
    return {"batch": work.batch, "evaluations_of_the_guided_field": work.evaluations, **values}


def _fits(work: Workload, batch: int) -> bool:
    try:
        _trainer(work, batch)
    except Exception as error:
        if not lacks_memory(error):
            raise
        return False
    return True


def largest_batch(name: str, work: Workload, found: Found, budget: Budget, most_doublings: int) -> dict[str, Value]:
    """Examples of a training step on each device, doubled until the memory lacks."""
    fits, too_large, ended = found.batches.get(name, 0), found.too_large.get(name), None
    for tried in itertools.count():
        if too_large is not None:
            break
        ended = budget.refusal() if tried < most_doublings else f"after {most_doublings} doublings"
        if ended is not None:
            break
        batch = 2 * fits or 1
        fits, too_large = (batch, None) if _fits(work, batch) else (fits, batch)
        gc.collect()
    return {"largest_on_each_device": fits, "too_large": too_large, "not_tried_further": ended}


def _product(sizes: Sizes, found: Found) -> dict[str, Value]:
    probe = timing.product_of(HALF, sizes.product)
    speeds = [probe(sizes.turn_seconds / 2) for _ in range(2 * TURNS)]
    found.product = max(speeds)
    return {"rows_and_columns": sizes.product, "TFLOP_per_s": max(speeds) / 1e12, "least": min(speeds) / 1e12}


def checks_of(sizes: Sizes, found: Found) -> list[Check]:
    """The product, training and sampling."""
    turn = sizes.turn_seconds
    checks = [Check(GROUP, "product of matrices in bfloat16", functools.partial(_product, sizes, found))]
    for name, work in sizes.trained.items():
        checks.append(Check(GROUP, f"{name}, training", functools.partial(train, name, work, found, turn)))
        if name in sizes.sampled:
            run = functools.partial(sample, name, sizes.sampled[name], found, turn)
            checks.append(Check(GROUP, f"{name}, guided samples by Heun", run))
    small = sizes.overhead
    run = functools.partial(train, small.title, small, found, turn)
    return [*checks, Check(GROUP, f"{small.title}, training, {small.train_steps} steps a dispatch", run)]


def last_checks_of(sizes: Sizes, found: Found, budget: Budget) -> list[Check]:
    """What may leave too little memory for anything after it."""
    name = sizes.filled
    run = functools.partial(largest_batch, name, sizes.trained[name], found, budget, sizes.most_doublings)
    return [Check("Memory", f"{name}, largest batch of a training step", run)]
