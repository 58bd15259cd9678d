"""PNG files in memory: what a builder yields, so that writing needs no TensorFlow."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image


def png(pixels: np.ndarray) -> bytes:
    """The PNG file of an image [H, W, 1 or 3] of integers 0..255."""
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(stream, "png")
    return stream.getvalue()
