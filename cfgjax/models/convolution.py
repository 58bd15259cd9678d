"""Convolution whose gradients are fast inside a loop on a CPU, too.

Where XLA's CPU compiler meets a convolution outside loops, it rewrites it to the one order of axes that has a fast
kernel; inside a loop it does not, and a gradient runs on a slow general one (github.com/jax-ml/jax/issues/12868).
Samplers and chunked training are loops: a U-Net's step in 8 chunks takes 0.74 s by this module and 7.76 s without
(docs/throughput.md, which has the machine). Here gradients ask for that order themselves, by transposed arguments:

(C1) y[n, p, o] = sum_{q, c} x[n, s p + q, c] k[q, c, o], x padded with zeros, p and q positions, s strides.
(C2) Its transpose in x is the convolution of y, dilated by s, with k reversed and its channels exchanged.
(C3) Its transpose in k is the convolution of x with y, dilated by s, where channels and examples change places.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from cfgjax.types import Array

_ORDER = ("NHWC", "HWIO", "NHWC")
Pair = tuple[int, int]
Precision = str | None
"""By JAX's name, of the products."""


def _plain(
    x: Array,
    kernel: Array,
    *,
    strides: Pair,
    padding: tuple[Pair, Pair],
    spread: Pair,
    kernel_spread: Pair,
    precision: Precision,
) -> Array:
    return lax.conv_general_dilated(
        x, kernel, strides, padding, spread, kernel_spread, dimension_numbers=_ORDER, precision=precision
    )


def _spread_size(size: int, spread: int) -> int:
    """The length of ``size`` values with spread - 1 zeros between each two."""
    return (size - 1) * spread + 1


def _to_input(
    cotangent: Array,
    x: Any,
    kernel: Array,
    *,
    strides: Pair,
    padding: Any,
    spread: Pair,
    kernel_spread: Pair,
    precision: Precision,
) -> Array:
    """(C2)."""
    sizes = zip(x.aval.shape[1:3], kernel.shape[:2], cotangent.shape[1:3], range(2), strict=True)
    wanted = []
    for size, width, found, axis in sizes:
        reach = _spread_size(width, kernel_spread[axis])
        low = reach - 1 - padding[axis][0]
        total = _spread_size(size, spread[axis]) + reach - 1
        wanted.append((low, total - low - _spread_size(found, strides[axis])))
    turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    settings = {"strides": spread, "padding": tuple(wanted), "spread": strides, "kernel_spread": kernel_spread}
    return _bind(cotangent, turned, **settings, precision=precision)


def _to_kernel(
    cotangent: Array,
    x: Array,
    kernel: Any,
    *,
    strides: Pair,
    padding: Any,
    spread: Pair,
    kernel_spread: Pair,
    precision: Precision,
) -> Array:
    """(C3)."""
    wanted = []
    for axis in range(2):
        reach = _spread_size(cotangent.shape[1 + axis], strides[axis])
        low = padding[axis][0]
        total = _spread_size(kernel.aval.shape[axis], kernel_spread[axis]) + reach - 1
        wanted.append((low, total - low - _spread_size(x.shape[1 + axis], spread[axis])))
    turned, values = jnp.transpose(x, (3, 1, 2, 0)), jnp.transpose(cotangent, (1, 2, 0, 3))
    settings = {"strides": kernel_spread, "padding": tuple(wanted), "spread": spread, "kernel_spread": strides}
    return jnp.transpose(_bind(turned, values, **settings, precision=precision), (1, 2, 0, 3))


def _over_examples(args: tuple[Array, Array], axes: tuple[Any, Any], **params: Any) -> tuple[Array, int]:
    """vmap over x alone is more examples; over kernels it is JAX's own rule."""
    if axes[1] is not None:
        return jax.vmap(lambda x, kernel: _plain(x, kernel, **params), axes)(*args), 0
    x = jnp.moveaxis(args[0], axes[0], 0)
    found = _bind(x.reshape(-1, *x.shape[2:]), args[1], **params)
    return found.reshape(*x.shape[:2], *found.shape[1:]), 0


def _bind(x: Array, kernel: Array, **params: Any) -> Array:
    return _convolution.bind(x, kernel, **params)


def _shaped(x: Any, kernel: Any, **params: Any) -> ShapedArray:
    found = jax.eval_shape(lambda x, kernel: _plain(x, kernel, **params), x, kernel)
    return ShapedArray(found.shape, found.dtype)


_convolution = Primitive("convolution")
_convolution.def_impl(jax.jit(_plain, static_argnames=("strides", "padding", "spread", "kernel_spread", "precision")))
_convolution.def_abstract_eval(_shaped)
ad.defbilinear(_convolution, _to_input, _to_kernel)
batching.primitive_batchers[_convolution] = _over_examples
mlir.register_lowering(_convolution, mlir.lower_fun(_plain, multiple_results=False))


def _is_plain(value: Array) -> bool:
    """Whether the type says nothing of devices: neither a shard_map's varying axes nor a mesh's explicit ones."""
    kind = jax.typeof(value)
    manual = getattr(kind, "manual_axis_type", None)
    varies = any(getattr(manual, name, ()) for name in ("varying", "unreduced", "reduced"))
    return not varies and all(part is None for part in kind.sharding.spec)


def _is_ours(x: Array, kernel: Array, further: dict[str, Any]) -> bool:
    """Whether the convolution has two spatial axes in this module's order, and nothing of groups or precision."""
    if jnp.ndim(x) != 4 or not (_is_plain(x) and _is_plain(kernel)):
        return False
    order = further.get("dimension_numbers")
    asked, ours = (lax.conv_dimension_numbers(x.shape, kernel.shape, each) for each in (order, _ORDER))
    others = {name: value for name, value in further.items() if name != "dimension_numbers" and value is not None}
    return asked == ours and others in ({}, {"feature_group_count": 1})


def convolve(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[Pair],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    **further: Any,
) -> Array:
    """``jax.lax.conv_general_dilated`` in two dimensions, for ``linen.Conv(conv_general_dilated=convolve)``.

    On CPUs (C1) with the gradients (C2), (C3), to all orders and in both modes; elsewhere JAX's own, whose gradients
    the compilers of accelerators recognise. JAX's own it is, too, for other orders of axes than Flax's (which is
    ``dimension_numbers=("NHWC", "HWIO", "NHWC")``), for groups, precisions and further types, and for values whose
    type tells of devices, under ``jax.shard_map`` with its checks or on a mesh of explicit axes.

    Args:
        lhs: x, [N, H, W, C] in Flax's order.
        rhs: k, [h, w, C, O] likewise.
        window_strides: s, for both axes.
        padding: "SAME", "VALID", or the zeros before and after, for both axes.
        lhs_dilation: spreads x, by default (1, 1).
        rhs_dilation: spreads k, likewise.
        further: of ``jax.lax.conv_general_dilated``, whose default order of axes is another one.

    Returns:
        [N, H', W', O] in Flax's order.

    Raises:
        TypeError, ValueError: shapes that do not belong together, as ``jax.lax.conv_general_dilated`` does.
    """
    spread, kernel_spread = tuple(lhs_dilation or (1, 1)), tuple(rhs_dilation or (1, 1))
    if jax.default_backend() != "cpu" or not _is_ours(lhs, rhs, further):
        return lax.conv_general_dilated(lhs, rhs, window_strides, padding, spread, kernel_spread, **further)
    if isinstance(padding, str):
        reach = [_spread_size(*each) for each in zip(rhs.shape[:2], kernel_spread, strict=True)]
        padding = lax.padtype_to_pads(lhs.shape[1:3], reach, window_strides, padding)
    pairs = tuple((int(low), int(high)) for low, high in padding)
    settings = {"strides": tuple(window_strides), "padding": pairs, "spread": spread, "kernel_spread": kernel_spread}
    precision = jax.config.jax_default_matmul_precision  # pyrefly: ignore[missing-attribute]
    return _bind(lhs, rhs, **settings, precision=precision)


Conv = partial(linen.Conv, conv_general_dilated=convolve)
"""Flax's layer, by ``convolve``."""
