"""What is checked, at its true size and at that of a test."""

from typing import NamedTuple

import jax.numpy as jnp

from cfgjax.models import DiT
from experiments.benchmark.workloads import WORKLOADS, Workload

HALF = jnp.dtype(jnp.bfloat16)


class Sizes(NamedTuple):
    """One form of the check.

    Attributes:
        compared: small networks in float32, by name, that are held to the CPU; their batch is that of training.
        repeated: the network in bfloat16 that is run again.
        attention: batch, tokens and heads.
        head_widths: of attention.
        product: rows of the matrices of the product that speeds are a percentage of.
        trained: what is trained, by name; train_batch is that of each device.
        sampled: what is sampled, by name.
        overhead: the smallest network that is trained, many steps in a dispatch.
        filled: the one of ``trained`` whose largest batch is sought.
        most_doublings: of that batch.
        turn_seconds: for which a program is repeated at least, when it is timed.
        backends: of PyTorch's attention.
        compiles: whether PyTorch's networks are compiled.
    """

    compared: dict[str, Workload]
    repeated: Workload
    attention: tuple[int, int, int]
    head_widths: tuple[int, ...]
    product: int
    trained: dict[str, Workload]
    sampled: dict[str, Workload]
    overhead: Workload
    filled: str
    most_doublings: int
    turn_seconds: float
    backends: tuple[str, ...]
    compiles: bool


def _of(name: str, batch: int, train_batch: int, evaluations: int) -> Workload:
    return WORKLOADS[name]._replace(
        batch=batch, train_batch=train_batch, evaluations=evaluations, sample_chunk=None, train_chunks=1, train_steps=1
    )


def in_half(work: Workload) -> Workload:
    """The work with its network in bfloat16."""
    return work._replace(network=work.network.clone(dtype=HALF))


FULL = Sizes(
    compared={
        "W0's MLP": _of("W0", 64, 64, 16),
        "DiT-Ti/2": _of("W2", 8, 8, 16),
        "U-Net": _of("W3", 8, 8, 16),
    },
    repeated=in_half(_of("W2", 16, 16, 16)),
    attention=(32, 256, 16),
    head_widths=(64, 72),
    product=8192,
    trained={"DiT-B/2": _of("W4-B", 64, 256, 32), "DiT-XL/2": _of("W4-XL", 64, 64, 32)},
    sampled={"DiT-B/2": _of("W4-B", 64, 64, 32)},
    overhead=WORKLOADS["W0"],
    filled="DiT-XL/2",
    most_doublings=12,
    turn_seconds=1.0,
    backends=("flash", "cudnn"),
    compiles=True,
)

_TINY = WORKLOADS["tiny"]
_DIT = Workload("DiT 16 x 1", DiT(16, 1, 2, num_classes=3), (4, 4, 2), 3, 4, 8, 4)

SMALL = Sizes(
    compared={"MLP": _TINY},
    repeated=in_half(_DIT),
    attention=(2, 16, 2),
    head_widths=(64, 72),
    product=128,
    trained={"DiT": in_half(_DIT)},
    sampled={"DiT": in_half(_DIT)},
    overhead=_TINY._replace(train_steps=2),
    filled="DiT",
    most_doublings=1,
    turn_seconds=0.01,
    backends=("flash",),
    compiles=False,
)
