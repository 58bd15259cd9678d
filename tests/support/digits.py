"""The real digits, as the data set ``digits`` has them, without the file that it is prepared as."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from cfgjax import data
from cfgjax.data import described, measured
from cfgjax.data.digits import NUM_TEST, _gray


class Digits(NamedTuple):
    """Training images [1437, 8, 8, 1] on [-1, 1], labels, properties [1437, 4], and what is said of each."""

    image: jax.Array
    label: jax.Array
    properties: jax.Array
    thresholds: described.Thresholds
    description: described.Description


def describe_all(label, properties, thresholds):
    """What is said of each of some digits."""
    return jax.jit(jax.vmap(described.describe, in_axes=(0, 0, None)))(label, properties, thresholds)


@cache
def train_digits():
    """The training digits, with all that is made of them."""
    found = load_digits()
    pixels = np.stack([_gray(digit) for digit in found.images[:-NUM_TEST]])
    image, label = data.normalize(pixels), jnp.asarray(found.target[:-NUM_TEST], jnp.int32)
    properties = jax.jit(jax.vmap(measured.properties))(image)
    thresholds = described.thresholds_of(np.asarray(properties), np.asarray(label))
    return Digits(image, label, properties, thresholds, describe_all(label, properties, thresholds))
