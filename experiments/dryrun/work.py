"""What a compiled program does: its kinds of work by estimated cycles, its collectives, its attention and precision."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Any, NamedTuple

import jax.numpy as jnp

from cfgjax.solvers.nfe import inner_programs
from experiments.benchmark.flops import of_product
from experiments.dryrun.hlo import Instruction, Program, num_bytes

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
PRODUCTS = {"convolution", "dot"}
MOVES = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "copy", "transpose", "reshape", "slice", "pad"),
    *("concatenate", "convert", "broadcast", "dynamic-slice", "dynamic-update-slice", "fusion", "copy-start"),
    *("copy-done", "slice-start", "slice-done", "reverse"),
}
"""The opcodes of what moves values and computes none."""

_MODULES = {"SelfAttention.__call__", "CrossAttention.__call__"}
ATTENTION = {"attention", "plain_attention", "inner_heads_attention", *_MODULES}
NORMS = {"modulate", "_gated", "_compute_stats", "_normalize", "LayerNorm.__call__", "RMSNorm.__call__"}
"""Functions whose names tell the kind of what was traced in them."""

FLASH = ("__cudnn$fmha", "tpu_custom_call")
"""Beginnings of the names of kernels of attention: cuDNN's, and that which the TPU's compiler itself puts in the place
of products with a softmax between them. It gives no cycles for the latter."""

KINDS = (
    *("products", "attention", "norms and modulation", "copies and transposes", "collectives", "optimizer and EMA"),
    "everything else",
)


def collective_of(opcode: str) -> str | None:
    """The collective that an instruction starts or is, or None."""
    return next((each for each in COLLECTIVES if opcode in (each, f"{each}-start", f"{each}-done")), None)


def kind_of(program: Program, instruction: Instruction) -> str:
    """The kind of work of an instruction, one of KINDS."""
    if collective_of(instruction.opcode) is not None:
        return "collectives"
    opcodes = {instruction.opcode, *(each.opcode for each in program.inner(instruction))}
    frames = program.frames(instruction)
    functions = {frame.function.split(".<locals>")[0] for frame in frames}
    if opcodes & PRODUCTS:
        return "products" if "Dense.__call__" in functions or not functions & ATTENTION else "attention"
    if any(re.search(r"/optax/|/training/\w*ema\.py", frame.file) for frame in frames):
        return "optimizer and EMA"
    if opcodes <= MOVES:
        return "copies and transposes"
    if functions & NORMS:
        return "norms and modulation"
    is_attention = functions & ATTENTION and "Dense.__call__" not in functions
    return "attention" if is_attention else "everything else"


def cycles_by_kind(program: Program) -> dict[str, int]:
    """The estimated cycles of each kind of work, loops' turns counted; empty where the compiler estimates none."""
    found: Counter[str] = Counter()
    for instruction, times in program.runs(lambda each: each.cycles > 0):
        found[kind_of(program, instruction)] += times * instruction.cycles
    return {kind: found[kind] for kind in KINDS} if found else {}


class Collective(NamedTuple):
    """The collectives of a kind.

    Attributes:
        count: how many run.
        bytes: of their values on one device.
        asynchronous: how many of them run beside other work.
    """

    count: int
    bytes: int
    asynchronous: int


def collectives(program: Program) -> dict[str, Collective]:
    """What devices tell each other: kind -> (count, bytes, how many are asynchronous)."""
    found = defaultdict(lambda: Collective(0, 0, 0))
    for instruction, times in program.runs():
        kind = collective_of(instruction.opcode)
        if kind is None:
            continue
        before = found[kind]
        if not instruction.opcode.endswith("-start"):
            size = num_bytes(instruction.shape)
            found[kind] = before._replace(count=before.count + times, bytes=before.bytes + times * size)
        elif '"is_sync":true' not in instruction.attributes:
            found[kind] = before._replace(asynchronous=before.asynchronous + times)
    return dict(found)


class Attention(NamedTuple):
    """The ways in which attention is computed.

    Attributes:
        flash: kernels forward.
        flash_backward: kernels of the gradient.
        plain: operations that take the exponentials of a softmax written out; a compiler may take them repeatedly.
    """

    flash: int
    flash_backward: int
    plain: int


def attention_of(program: Program) -> Attention:
    """How often attention is computed in either way."""
    flash = backward = plain = 0
    for instruction, times in program.runs():
        target = instruction.custom_call_target
        if target.startswith(FLASH):
            flash, backward = (flash, backward + times) if "Backward" in target else (flash + times, backward)
        elif _is_softmax(program, instruction):
            plain += times
    return Attention(flash, backward, plain)


def _is_softmax(program: Program, instruction: Instruction) -> bool:
    """Whether an instruction takes the exponentials of a softmax within attention."""
    inside = [instruction, *program.inner(instruction)]
    return any(
        each.opcode == "exponential" and any(frame.function in ATTENTION for frame in program.frames(each))
        for each in inside
    )


def float32_products(program: Any) -> list[dict[str, Any]]:
    """The products of float32 numbers in a trace: {"source", "count", "flops"} for each line of source, most first.

    Args:
        program: of ``jax.make_jaxpr``. Of its branches, such as those for other devices, the one of most such FLOPs
            counts.
    """
    found = _products(program.jaxpr)
    flops, counts = Counter[str](), Counter(source for source, _ in found)
    for source, size in found:
        flops[source] += size
    return [{"source": name, "count": counts[name], "flops": size} for name, size in flops.most_common()]


def _products(program: Any) -> list[tuple[str, int]]:
    """(line of source, FLOPs) of each product of float32 numbers in a program and those inside it."""
    found = []
    for equation in program.eqns:
        operations = of_product(equation)
        if operations is not None:
            if all(each.aval.dtype == jnp.float32 for each in equation.invars):
                found.append((_source_of(equation), operations))
            continue
        inner = [_products(each) for each in inner_programs(equation)]
        if equation.primitive.name == "cond":
            inner = [max(inner, key=lambda products: sum(size for _, size in products))]
        found += (each for products in inner for each in products)
    return found


def _source_of(equation: Any) -> str:
    """The line outside JAX and Flax at which an equation was traced."""
    frames = [] if equation.source_info.traceback is None else equation.source_info.traceback.frames
    own = [frame for frame in frames if not re.search(r"/site-packages/(jax|flax|optax)/", frame.file_name)]
    return f"{own[0].file_name}:{own[0].line_num} ({own[0].function_name})" if own else "unknown"
