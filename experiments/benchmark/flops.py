"""Floating-point operations of a function, counted by hand's rules from its trace: two for each multiply-add.

Only matrix products and convolutions count, as in published model FLOPs; a scan's body counts once for each turn, and
of branches, such as those for other devices, the one of most operations.
"""

import math
from collections.abc import Callable
from typing import Any

import jax

from cfgjax.solvers.nfe import inner_programs


def _of_matrices(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _of_convolution(equation: Any) -> int:
    """JAX's own convolution, in its order of axes, or that of ``models.convolution``, whose kernels end in channels."""
    kernel, order = equation.invars[1].aval.shape, equation.params.get("dimension_numbers")
    outputs = kernel[-1 if order is None else order.rhs_spec[0]]
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // outputs


def of_product(equation: Any) -> int | None:
    """The operations of a matrix product or a convolution, of a trace; None for any other equation."""
    name = equation.primitive.name
    if name == "dot_general":
        return _of_matrices(equation)
    return _of_convolution(equation) if name in ("conv_general_dilated", "convolution") else None


def _of_jaxpr(jaxpr: Any) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name, operations = equation.primitive.name, of_product(equation)
        if operations is not None:
            total += operations
        elif name == "while":
            raise ValueError("count takes functions without while loops, whose turns are not known")
        elif name == "cond":
            total += max(map(_of_jaxpr, inner_programs(equation)))
        else:
            total += equation.params.get("length", 1) * sum(_of_jaxpr(each) for each in inner_programs(equation))
    return total


def count(of: Callable[..., Any], *args: Any) -> int:
    """The operations of ``of(*args)``; only shapes and types of the arguments matter.

    >>> import jax.numpy as jnp
    >>> count(lambda a, b: a @ b, jnp.ones((3, 5)), jnp.ones((5, 7)))
    210

    Raises:
        ValueError: a while loop.
    """
    return _of_jaxpr(jax.make_jaxpr(of)(*args).jaxpr)
