"""What can be read off a function's trace, without running it: how many examples to compute together, and how."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from cfgjax import xla_flags
from cfgjax.solvers.nfe import inner_programs

ON_CPU, ON_ACCELERATOR = 8 * 2**20, 4 * 2**30
"""Bytes that the largest value of a chunk may take: what stays in a CPU's caches; elsewhere a share of the memory."""

MOST_ON_CPU, MOST = 1024, 8192
"""Examples of a chunk, however small; on a CPU more of an MLP's rows are slower than fewer, chunk after chunk."""


class Plan(NamedTuple):
    """How a function of one example is best mapped over many.

    Attributes:
        chunk: how many examples are computed together, a power of 2.
        compiler_options: of ``jax.jit``.
    """

    chunk: int
    compiler_options: dict[str, str]


def equations(program: Any) -> Iterator[Any]:
    """All equations of a program and of the programs inside it."""
    for equation in program.eqns:
        yield equation
        for inner in inner_programs(equation):
            yield from equations(inner)


def _most_bytes(equation: Any) -> int:
    return max((each.aval.size * each.aval.dtype.itemsize for each in equation.outvars), default=0)


def _is_batched_product(equation: Any) -> bool:
    """Whether it is a batch of products of matrices: one of vectors, or of a vector with a matrix, is no such."""
    if equation.primitive.name != "dot_general":
        return False
    contracted, batched = equation.params["dimension_numbers"]
    return bool(batched[0]) and all(
        _free_size(each.aval.shape, (*summed, *along)) > 1
        for each, summed, along in zip(equation.invars, contracted, batched, strict=True)
    )


def _free_size(shape: tuple[int, ...], taken: tuple[int, ...]) -> int:
    return math.prod(size for axis, size in enumerate(shape) if axis not in taken)


def _stacked(leaf: Any) -> jax.ShapeDtypeStruct:
    kind = jax.typeof(leaf)
    return jax.ShapeDtypeStruct((1, *kind.shape), kind.dtype)


def plan_batching(one: Callable[..., Any], *example: Any, shared: int = 0) -> Plan:
    """The plan for mapping ``one``, by the size of the largest value on its way and by its products of matrices.

    A chunk's largest value stays in a CPU's caches; the compiler's options are those of
    ``compiler.batched_product_options`` where mapping makes batches of products, as attention does.

    Args:
        one: the function of one example.
        example: its arguments, of which only shapes and types matter.
        shared: how many of them, from the first on, are the same for all examples, such as weights.
    """
    arguments = *example[:shared], *jax.tree.map(_stacked, example[shared:])
    mapped = jax.vmap(one, (None,) * shared + (0,) * (len(example) - shared))
    found = list(equations(jax.make_jaxpr(mapped)(*arguments).jaxpr))
    room, most = (ON_CPU, MOST_ON_CPU) if jax.default_backend() == "cpu" else (ON_ACCELERATOR, MOST)
    largest = max(map(_most_bytes, found), default=1)
    chunk = min(most, 1 << max(0, (room // max(1, largest)).bit_length() - 1))
    return Plan(chunk, xla_flags.batched_product_options() if any(map(_is_batched_product, found)) else {})


def filled_parts(num_rows: int, size: int) -> list[np.ndarray]:
    """The rows in parts of one size, the last filled up by the last row.

    >>> [part.tolist() for part in filled_parts(5, 3)]
    [[0, 1, 2], [3, 4, 4]]
    """
    return [np.minimum(np.arange(start, start + size), num_rows - 1) for start in range(0, num_rows, size)]


def compiled(
    function: Callable[..., Any], example: tuple[Any, ...], compiler_options: dict[str, str]
) -> Callable[..., Any]:
    """The compiled function, of one array, to which the arrays that it closes over are arguments.

    As constants, the weights of a large network would lie in the program, and in every copy and cache of it.

    Args:
        function: of arrays, whose value is one array.
        example: its arguments, of which only shapes and types matter.
        compiler_options: of ``jax.jit``.
    """
    traced = jax.make_jaxpr(function)(*example)

    def run(held: list[Any], args: tuple[Any, ...]) -> Any:
        return jax.core.eval_jaxpr(traced.jaxpr, held, *jax.tree.leaves(args))[0]

    program = jax.jit(run, compiler_options=compiler_options)
    return lambda *args: program(traced.consts, args)
