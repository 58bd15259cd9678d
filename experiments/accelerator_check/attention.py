"""Attention as the library's networks compute it in bfloat16, against plain products of matrices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cfgjax.models.attention import attention, plain_attention
from cfgjax.types import Array
from experiments.accelerator_check import device
from experiments.accelerator_check.against_cpu import errors
from experiments.accelerator_check.checks import Check
from experiments.accelerator_check.rows import Value
from experiments.accelerator_check.sizes import HALF, Sizes
from experiments.benchmark import timing
from experiments.dryrun.work import FLASH

GROUP = "Attention in bfloat16"
LATEST = 0.5
Attention = Callable[[Array, Array, Array], Array]


def _pulled_back(attend: Attention) -> Callable[..., Any]:
    """(cotangent, query, key, value) -> the gradients by the three."""
    return lambda cotangent, *args: jax.vjp(jax.vmap(attend), *args)[1](cotangent)


PROGRAMS = {"forward": lambda attend: lambda _, *args: jax.vmap(attend)(*args), "gradient": _pulled_back}


def num_fused(compiled_text: str) -> int:
    """The calls of fused attention kernels in a compiled program."""
    return sum(compiled_text.count(f'custom_call_target="{name}') for name in FLASH)


def _compare(kind: str, shape: tuple[int, ...], turn_seconds: float) -> dict[str, Value]:
    """Errors of both against plain attention of the same numbers in float32, by the CPU if it is there; their times."""
    args = [jax.random.normal(key, shape, HALF) for key in jax.random.split(jax.random.key(0), 4)]
    in_full = [np.asarray(each, np.float32) for each in args]
    with jax.default_device(device.cpu()), jax.default_matmul_precision("highest"):
        exact = jax.device_get(jax.jit(PROGRAMS[kind](plain_attention))(*in_full))
    values: dict[str, Value] = {}
    for name, attend in (("", attention), ("plain_", plain_attention)):
        executable = jax.jit(PROGRAMS[kind](attend)).lower(*args).compile()
        values[f"{name}error"], values[f"{name}largest_error"] = errors(executable(*args), exact)
        seconds = timing.repeat(lambda run=executable: jax.block_until_ready(run(*args)), turn_seconds)
        values[f"{name}ms"] = 1e3 * seconds
        if attend is attention:
            values["fused_kernels"] = num_fused(executable.as_text() or "")
    return values


def checks_of(sizes: Sizes) -> list[Check]:
    """Forward and gradient for each width of the heads."""
    batch, tokens, heads = sizes.attention
    return [
        Check(
            GROUP,
            f"{batch} x {tokens} tokens, {heads} heads of {width}, {kind}",
            functools.partial(_compare, kind, (batch, tokens, heads, width), sizes.turn_seconds / 5),
            LATEST,
        )
        for width in sizes.head_widths
        for kind in PROGRAMS
    ]
