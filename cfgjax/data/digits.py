"""The 1,797 handwritten digits of 8 x 8 pixels that ship inside scikit-learn, as a tfds data set.

Source: E. Alpaydin & C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import tensorflow_datasets as tfds

from cfgjax.data.untrusted.image_decoding import encode_png

NUM_TEST = 360
"""A fifth of the images, the last ones in the file's order."""


def _gray(digit: np.ndarray) -> np.ndarray:
    """Integers 0..16, [8, 8], as gray values 0..255, [8, 8, 1]."""
    return np.round(digit * (255 / 16)).astype(np.uint8)[..., np.newaxis]


with tfds.core.registered.skip_registration():

    class Digits(tfds.core.GeneratorBasedBuilder):
        """The builder: images [8, 8, 1] and labels 0..9, the last fifth as split ``test``."""

        name = "digits"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            features = tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            )
            return tfds.core.DatasetInfo(
                builder=self, description=__doc__, features=features, supervised_keys=("image", "label")
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            # Here, as it takes a second to import, and most commands do without.
            from sklearn.datasets import load_digits

            digits = cast(Any, load_digits())
            last = len(digits.target) - NUM_TEST
            return {
                "train": self._generate_examples(digits.images[:last], digits.target[:last]),
                "test": self._generate_examples(digits.images[last:], digits.target[last:]),
            }

        def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, dict]]:
            for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield index, {"image": encode_png(_gray(image)), "label": int(label)}
