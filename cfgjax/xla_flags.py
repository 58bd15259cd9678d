"""What the compiler must be told: before the first computation, and for a program of many small products.

jaxlib 0.10.2 returns wrong numbers on CPUs, without a word, for sums of products over many examples: its YNN kernels
skip rows of large batches (github.com/jax-ml/jax/issues/39103). The exact fields of ``mixtures`` are such sums. Without
these kernels for reductions the numbers are right, at the same speed.
"""

from __future__ import annotations

import os
from importlib.metadata import version

import jax

WRONG = {"0.10.2"}
"""The versions of jaxlib known to be wrong; in others the flag may not exist, and an unknown one is fatal."""

FLAG = "--xla_cpu_experimental_ynn_fusion_type"


def avoid_wrong_reductions() -> None:
    """Adds the flag to XLA_FLAGS, unless it is set there; XLA reads it at the process's first computation."""
    flags = os.environ.get("XLA_FLAGS", "")
    if version("jaxlib") in WRONG and FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {FLAG}=-reduce".strip()


def batched_product_options() -> dict[str, str]:
    """``compiler_options`` of ``jax.jit`` that share out batched products of matrices, attention's, over a CPU's cores.

    The kernels of jaxlib 0.10.2 take such a batch on one core, two thirds as fast on two cores. Without them a product
    of a matrix and one vector, or two, takes twice the time: leave them to MLPs in small batches. Empty on
    other devices and versions.
    """
    is_slow = version("jaxlib") in WRONG and jax.default_backend() == "cpu"
    return {FLAG.removeprefix("--"): ""} if is_slow else {}
