"""States in few bytes: integers, of which the differences along guidance scale and time are compressed.

Neighbours in guidance scale and time lie near one another, so that the differences are small. ``unpack`` tells how
the page reads them; its script does the same.
"""

import base64
import zlib

import numpy as np

STEPS = 320
"""Positions that are told apart in half the picture's width."""
LARGEST = 4 * STEPS
"""Positions farther out are kept there."""
NOT_FINITE = 8_191


def quantised(states: np.ndarray, half_width: float) -> np.ndarray:
    """Positions in steps as integers; NOT_FINITE where they are no numbers."""
    steps = np.clip(np.round(np.nan_to_num(states, posinf=0, neginf=0) * STEPS / half_width), -LARGEST, LARGEST)
    return np.where(np.isfinite(states), steps, NOT_FINITE).astype(np.int16)


def pack(states: np.ndarray) -> str:
    """Integers [rungs, scales, frames, n, 2] as text: base64 of zlib's bytes.

    Before that they lie as [rungs, frames, 2, scales, n] differences, first along scales, then along frames, those
    below zero in turn with the others (0, -1, 1, -2, ..), all low bytes before all high ones.
    """
    by_scale = np.diff(states.transpose(0, 2, 4, 1, 3).astype(np.int32), axis=3, prepend=0)
    changes = np.diff(by_scale, axis=1, prepend=0)
    folded = ((changes << 1) ^ (changes >> 31)).astype(np.uint16)
    low, high = ((folded >> shift).astype(np.uint8).tobytes() for shift in (0, 8))
    return base64.b64encode(zlib.compress(low + high, 9)).decode()


def unpack(text: str, shape: tuple[int, int, int, int]) -> np.ndarray:
    """The integers of ``pack``, of this shape [rungs, scales, frames, n] before the two coordinates.

    >>> states = np.arange(24, dtype=np.int16).reshape(1, 3, 2, 2, 2)
    >>> bool((unpack(pack(states), (1, 3, 2, 2)) == states).all())
    True
    """
    rungs, scales, frames, count = shape
    found = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).astype(np.int32)
    low, high = found.reshape(2, rungs, frames, 2, scales, count)
    folded = low + (high << 8)
    changes = (folded >> 1) ^ -(folded & 1)
    return changes.cumsum(axis=1).cumsum(axis=3).transpose(0, 3, 1, 4, 2).astype(np.int16)
