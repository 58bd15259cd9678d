"""What can be said of a handwritten digit in words, by what is measured of its image.

(W1) A word is of a property, low or high. A digit has it where the property lies in the lower or the upper third of
     the training images OF ITS CLASS: a thin seven is thin for a seven. (Of all classes together no seven would lean
     left, and no zero be narrow.) The middle third has no word.
(W2) Of what can be said any part may be left out, the class too.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import require_integers, require_shape
from cfgjax.contracts import Contract, Key, UnitInterval, checked, instance, one_of, rows, whole
from cfgjax.data.measured import PROPERTIES, Measured
from cfgjax.types import Array

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""The names of the labels 0..9."""
WORDS = (("thin", "bold"), ("narrow", "wide"), ("short", "tall"), ("leaning left", "leaning right"))
"""The low and the high word of each of ``measured.PROPERTIES``."""
_WORDS = tuple(word for pair in WORDS for word in pair)
NO_CLASS = len(CLASSES)
"""The label of a description that does not say the class."""


class Description(NamedTuple):
    """What is said of ONE digit.

    Attributes:
        label: the class, [] int32; NO_CLASS where it is not said.
        words: of each property -1 for its low word, 1 for its high one and 0 where neither is said, [4] int32.
    """

    label: Array
    words: Array


class Thresholds(NamedTuple):
    """Below and above which a property has a word, [K, 4] each: of each class and property."""

    low: Array
    high: Array


KnownDescription = Annotated[Description, instance(Description, "a Description, as sentences.parse(prompt) is")]
"""A Description."""
KnownThresholds = Annotated[Thresholds, instance(Thresholds, "Thresholds, as described.thresholds_of(...) gives them")]
"""Thresholds."""
Class = Annotated[Array | int, whole(0, NO_CLASS - 1)]
"""The label of a digit, 0..9."""
Word = Annotated[str, one_of(*_WORDS)]
"""A word of a property."""


@checked
def thresholds_of(
    properties: Annotated[np.ndarray, rows(1, ndim=2)], labels: Annotated[np.ndarray, Contract(require_integers)]
) -> Thresholds:
    """The quantiles 1/3 and 2/3 of each property over the images of each class (W1).

    Args:
        properties: of the training images, [n, 4], as ``measured.properties`` gives them.
        labels: of the same images, [n], in 0..9.

    Raises:
        ValueError: other than four properties, labels of another number or outside 0..9, or a class without an image.
    """
    labels = np.asarray(labels)
    require_shape("properties", properties, (len(properties), len(PROPERTIES)))
    require_shape("labels", labels, (len(properties),))
    outside = labels[(labels < 0) | (labels >= NO_CLASS)]
    if outside.size:
        raise ValueError(f"labels must be in 0..{NO_CLASS - 1}, got {outside[0]}")
    absent = [name for label, name in enumerate(CLASSES) if not np.any(labels == label)]
    if absent:
        raise ValueError(f"labels must hold every class, got no {absent[0]}")
    of_classes = [np.quantile(properties[labels == label], [1 / 3, 2 / 3], axis=0) for label in range(NO_CLASS)]
    low, high = np.stack(of_classes, axis=1)
    return Thresholds(jnp.asarray(low, jnp.float32), jnp.asarray(high, jnp.float32))


@checked
def describe(label: Class, properties: Measured, thresholds: KnownThresholds) -> Description:
    """All that can be said of a digit (W1): its class, and the word of each property that has one."""
    label = jnp.asarray(label, jnp.int32)
    is_low, is_high = properties < thresholds.low[label], properties > thresholds.high[label]
    return Description(label, is_high.astype(jnp.int32) - is_low.astype(jnp.int32))


@checked
def mention(
    key: Key, description: KnownDescription, rate_of_words: UnitInterval, rate_of_class: UnitInterval
) -> Description:
    """A part of what is said of a digit, drawn for training, so that whatever may be left out is at times.

    Args:
        key: for the draws.
        description: all that is said.
        rate_of_words: the probability with which each word stays, independently; at 1/2 every subset is as likely.
        rate_of_class: the probability with which the class stays.
    """
    key_of_words, key_of_class = jax.random.split(key)
    is_word_said = jax.random.bernoulli(key_of_words, rate_of_words, description.words.shape)
    is_class_said = jax.random.bernoulli(key_of_class, rate_of_class)
    label = jnp.where(is_class_said, description.label, NO_CLASS)
    return Description(label.astype(jnp.int32), jnp.where(is_word_said, description.words, 0))


@checked
def meets(word: Word, label: Class, properties: Measured, thresholds: KnownThresholds) -> Array:
    """Whether a digit of these properties has the word, [] of booleans.

    Args:
        word: one of ``WORDS``.
        label: the digit's class, for which the word is meant (W1).
        properties: [4].
        thresholds: of the training images.
    """
    index, is_high = divmod(_WORDS.index(word), 2)
    return describe(label, properties, thresholds).words[index] == 2 * is_high - 1


@checked
def holds(description: KnownDescription, combination: KnownDescription) -> Array:
    """Whether a description says all that a combination says, [] of booleans."""
    is_class_in = (combination.label == NO_CLASS) | (combination.label == description.label)
    is_word_in = (combination.words == 0) | (combination.words == description.words)
    return is_class_in & is_word_in.all()
