"""What turns latents of a run into images, as a function of batches."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Decoder(NamedTuple):
    """What turns latents of a run into images.

    Attributes:
        shape: of an image.
        decode: latents [n, h, w, c] in the scale of training -> images [n, H, W, C] about on [-1, 1].
    """

    shape: tuple[int, ...]
    decode: Callable[[np.ndarray], np.ndarray]

    def decode_all(self, latents: np.ndarray) -> np.ndarray:
        """Images [..., H, W, C] of latents [..., h, w, c], with as many axes before them."""
        images = self.decode(latents.reshape(-1, *latents.shape[-3:]))
        return images.reshape(*latents.shape[:-3], *self.shape)
