"""In what precision accelerators compute the float32 products of a network's matrices.

Unless they are asked, a TPU computes them in bfloat16 and a GPU in TF32; on a CPU nothing differs.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import jax

from experiments.config.schema import Experiment
from experiments.config.values import MatmulPrecision

Args = ParamSpec("Args")
Value = TypeVar("Value")


def matmul_precision_of(experiment: Experiment) -> MatmulPrecision:
    """The precision of a run's network: a bfloat16 one leaves its few float32 products to the device, too."""
    is_float32 = getattr(experiment.network, "dtype", "float32") == "float32"
    return experiment.matmul_precision if is_float32 else "default"


def at_precision(function: Callable[Args, Value], precision: MatmulPrecision) -> Callable[Args, Value]:
    """The function, its products and their gradients traced at a precision wherever it is called.

    By "default" it is the function itself, at the precision of JAX's own setting ``jax_default_matmul_precision``.
    """
    if precision == "default":
        return function

    @wraps(function)
    def traced(*args: Args.args, **kwargs: Args.kwargs) -> Value:
        with jax.default_matmul_precision(precision):
            return function(*args, **kwargs)

    return traced
