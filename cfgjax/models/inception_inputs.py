"""ONE picture 0..255 as what the FID Inception reads: 299 x 299, resized by either convention in which FID is quoted.

Both are bilinear, between the two nearest positions along each axis and without smoothing where a picture shrinks. For
a side of n positions, output i of 299 lies at

(R1) i n / 299 in the TensorFlow graph, which ADM's evaluator runs, and in torch-fidelity: the first position stays, and
     all that lies beyond the last one repeats it; then (pixels - 128) / 128.
(R2) (i + 1/2) n / 299 - 1/2, no less than 0, in pytorch-fid: both ends are alike; then 2 pixels / 255 - 1.

Positions are float32, as theirs are. Pictures are to be uint8: torch-fidelity takes nothing else, pytorch-fid reads
files, and ADM's evaluator turns any type into float32 as it is, as is done here.

Source: guided-diffusion, evaluations/evaluator.py; torch-fidelity 0.4, interpolate_compat_tensorflow.py; pytorch-fid
0.3, inception.py.
"""

from __future__ import annotations

from typing import Annotated

import jax.numpy as jnp
import numpy as np

from cfgjax.checks import require_real
from cfgjax.contracts import Contract, checked
from cfgjax.types import Array

SIDE = 299
"""Height and width of what the network reads."""


def _require_picture(name: str, value: Array | np.ndarray) -> None:
    require_real(name, value)
    shape = np.shape(value)
    if len(shape) != 3 or shape[-1] != 3 or 0 in shape:
        raise ValueError(f"{name} must be ONE picture [height, width, 3], got shape {shape}")


Picture = Annotated[Array | np.ndarray, Contract(_require_picture)]
"""[H, W, 3], real numbers in 0..255."""


def _between(values: Array, positions: np.ndarray, axis: int) -> Array:
    """Values at positions along an axis, by straight lines between neighbours; the last one beyond the end."""
    last = values.shape[axis] - 1
    lower = np.minimum(positions.astype(np.int32), last)
    upper = np.minimum(lower + 1, last)
    share = np.expand_dims(positions - lower.astype(np.float32), [each for each in range(values.ndim) if each != axis])
    low = jnp.take(values, lower, axis)
    return low + (jnp.take(values, upper, axis) - low) * share


def _resized(pixels: Array | np.ndarray, offset: float) -> Array:
    """[299, 299, 3], float32, output i being at (i + offset) n / 299 - offset."""
    values = jnp.asarray(pixels, jnp.float32)
    for axis in (1, 0):
        step = np.float32(values.shape[axis] / SIDE)
        positions = (np.arange(SIDE, dtype=np.float32) + np.float32(offset)) * step - np.float32(offset)
        values = _between(values, np.maximum(positions, np.float32(0)), axis)
    return values


@checked
def tensorflow_input(pixels: Picture) -> Array:
    """The picture resized by (R1), on [-1, 1): what ADM's evaluator and torch-fidelity compute.

    >>> tensorflow_input(np.full((2, 2, 3), 64, np.uint8))[0, 0].tolist()
    [-0.5, -0.5, -0.5]
    """
    return (_resized(pixels, 0.0) - 128) / 128


@checked
def pytorch_fid_input(pixels: Picture) -> Array:
    """The picture resized by (R2), on [-1, 1]: what pytorch-fid computes.

    >>> pytorch_fid_input(np.full((2, 2, 3), 255, np.uint8))[0, 0].tolist()
    [1.0, 1.0, 1.0]
    """
    return _resized(jnp.asarray(pixels, jnp.float32) / 255, 0.5) * 2 - 1
