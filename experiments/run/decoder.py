"""What turns latents of a run into images, as a function of batches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Decoder(NamedTuple):
    """What turns latents of a run into images.

    Attributes:
        shape: of an image.
        decode: latents [n, h, w, c] in the scale of training -> images [n, H, W, C] about on [-1, 1].
        reconstruct: images [n, H, W, C] -> those that the means of their latents are decoded to.
        place: of the autoencoder, as the command line names it.
        digest: of its network and parameters.
    """

    shape: tuple[int, ...]
    decode: Callable[[np.ndarray], np.ndarray]
    reconstruct: Callable[[np.ndarray], np.ndarray]
    place: Path
    digest: str

    def decode_all(self, latents: np.ndarray) -> np.ndarray:
        """Images [..., H, W, C] of latents [..., h, w, c], with as many axes before them."""
        images = self.decode(latents.reshape(-1, *latents.shape[-3:]))
        return images.reshape(*latents.shape[:-3], *self.shape)

    def in_gray(self) -> Decoder:
        """The decoder to images of one channel, the mean of those that it gives, as gray images were encoded."""

        def gray(images: np.ndarray) -> np.ndarray:
            return images.mean(axis=-1, keepdims=True)

        return self._replace(
            shape=(*self.shape[:2], 1),
            decode=lambda latents: gray(self.decode(latents)),
            reconstruct=lambda images: gray(self.reconstruct(np.repeat(images, self.shape[-1], axis=-1))),
        )
