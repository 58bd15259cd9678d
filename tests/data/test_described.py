"""What is said of a digit: thresholds by class, words, and the part of them that a sentence mentions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax.data import described, measured
from cfgjax.data.described import NO_CLASS, WORDS, Description, Thresholds
from tests.support.digits import describe_all, train_digits

STEPS = np.arange(10.0)[:, np.newaxis] + np.array([0, 0.25, 0.5, 0.75])
BY_HAND = Thresholds(jnp.asarray(STEPS, jnp.float32), jnp.asarray(STEPS + 0.125, jnp.float32))
"""Between c + p / 4 and c + p / 4 + 1/8 the property p of class c has no word."""
FLAT_WORDS = [(word, index, code) for index, pair in enumerate(WORDS) for word, code in zip(pair, (-1, 1), strict=True)]


def _description(label, *words):
    return Description(jnp.int32(label), jnp.array(words, jnp.int32))


def test_thresholds_are_the_terciles_of_each_class():
    """Of the values c, c + 1, ..., c + 30 of a class they are c + 10 and c + 20, in whatever order."""
    classes, steps = np.divmod(np.random.default_rng(0).permutation(310), 31)
    properties = (classes + steps)[:, np.newaxis] * np.array([1.0, -1, 2, 0.5])
    low, high = described.thresholds_of(properties, classes)
    first, label = np.array([10, -20, 20, 5]), np.arange(10)[:, np.newaxis]
    np.testing.assert_allclose(low, first + label * [1, -1, 2, 0.5], rtol=1e-6)
    np.testing.assert_allclose(high, first + label * [1, -1, 2, 0.5] + [10, 10, 20, 5], rtol=1e-6)


def test_a_word_means_the_outer_third_of_its_class():
    digits = train_digits()
    for label in range(10):
        words = np.asarray(digits.description.words)[np.asarray(digits.label) == label]
        for code in (-1, 1):
            share = (words == code).mean(axis=0)
            np.testing.assert_allclose(share, 1 / 3, atol=1 / len(words))
    np.testing.assert_array_equal(digits.description.label, digits.label)


def test_of_all_classes_together_no_seven_would_lean_left():
    """Why thresholds are those of the class (W1)."""
    digits = train_digits()
    slants = np.asarray(digits.properties)[:, measured.PROPERTIES.index("slant")]
    assert np.all(slants[np.asarray(digits.label) == 7] > np.quantile(slants, 1 / 3))


def test_words_by_hand():
    """Strictly under and above the thresholds; on them there is no word."""
    values = jnp.array([2.9, 3.25, 3.625, 3.9])
    found = described.describe(3, values, BY_HAND)
    assert (int(found.label), found.words.tolist()) == (3, [-1, 0, 0, 1])
    assert described.describe(2, values, BY_HAND).words.tolist() == [1, 1, 1, 1]
    assert described.describe(4, values, BY_HAND).words.tolist() == [-1, -1, -1, -1]
    assert found.words.dtype == found.label.dtype == jnp.int32


@pytest.mark.parametrize(("word", "index", "code"), FLAT_WORDS)
def test_a_word_is_met_where_it_is_in_the_description(word, index, code):
    digits = train_digits()
    met = jax.vmap(lambda label, values: described.meets(word, label, values, digits.thresholds))
    np.testing.assert_array_equal(
        met(digits.label, digits.properties), np.asarray(digits.description.words)[:, index] == code
    )


def test_words_met_by_hand():
    values = jnp.array([2.9, 3.25, 3.625, 3.9])
    met = [word for word, _, _ in FLAT_WORDS if described.meets(word, 3, values, BY_HAND)]
    assert met == ["thin", "leaning right"]


def test_words_are_of_the_properties_in_order():
    """A wider digit is wide, one that leans to the right leans right."""
    for changed, word in zip(np.eye(4), ["bold", "wide", "tall", "leaning right"], strict=True):
        met = [each for each, _, _ in FLAT_WORDS if described.meets(each, 0, STEPS[0] + 0.1 + changed, BY_HAND)]
        assert met == [word]
    assert measured.PROPERTIES == ("weight", "width", "height", "slant")


def test_a_little_noise_changes_few_words():
    """Of 5 gray levels of 255 in standard deviation, as samples have it: fewer than 7 %, and as many up as down."""
    digits = train_digits()
    noise = 0.04 * jax.random.normal(jax.random.key(0), digits.image.shape)
    properties = jax.jit(jax.vmap(measured.properties))(digits.image + noise)
    words = np.asarray(describe_all(digits.label, properties, digits.thresholds).words)
    moved = words - np.asarray(digits.description.words)
    assert np.all((moved != 0).mean(axis=0) < 0.07)
    assert np.all(np.abs(moved.mean(axis=0)) < 0.02)


def _mentioned(number, said, rate_of_words, rate_of_class):
    keys = jax.random.split(jax.random.key(3), number)
    draw = jax.jit(jax.vmap(described.mention, in_axes=(0, None, None, None)))
    found = draw(keys, said, rate_of_words, rate_of_class)
    return np.asarray(found.label), np.asarray(found.words)


def test_every_subset_of_words_is_mentioned_as_often_and_the_class_independently():
    number, said = 20_000, _description(8, -1, 1, 1, -1)
    labels, words = _mentioned(number, said, 0.5, 0.75)
    assert set(np.unique(labels)) == {8, NO_CLASS}
    assert np.all((words == 0) | (words == np.asarray(said.words)))
    for subset in itertools.product([False, True], repeat=4):
        for is_class_said, share in ((True, 0.75), (False, 0.25)):
            found = np.mean(((words != 0) == subset).all(axis=1) & ((labels == 8) == is_class_said))
            expected = share / 16
            assert abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / number)


def test_at_rate_1_all_is_mentioned_and_at_rate_0_nothing():
    said = _description(0, 0, 1, 0, -1)
    labels, words = _mentioned(100, said, 1.0, 1.0)
    assert np.all(labels == 0) and np.all(words == np.asarray(said.words))
    labels, words = _mentioned(100, said, 0.0, 0.0)
    assert np.all(labels == NO_CLASS) and np.all(words == 0)
    labels, words = _mentioned(100, said, 0.0, 1.0)
    assert np.all(labels == 0) and np.all(words == 0)


def test_a_combination_is_held_by_what_says_all_of_it():
    """Against sets: (place, what is said there)."""

    def facts(said):
        words = {(index, code) for index, code in enumerate(said.words.tolist()) if code}
        return words | ({("class", int(said.label))} - {("class", NO_CLASS)})

    labels = (3, 4, NO_CLASS)
    words = [(0, 0, 0, 0), (1, 0, 0, 0), (-1, 0, 0, 0), (1, 0, 0, -1), (1, 1, 1, 1)]
    some = [_description(label, *each) for label in labels for each in words]
    for description, combination in itertools.product(some, some):
        assert bool(described.holds(description, combination)) == (facts(combination) <= facts(description))


def test_nothing_is_compiled_anew_for_other_numbers():
    digits, traced = train_digits(), []

    @jax.jit
    def run(key, label, properties, thresholds):
        traced.append(None)
        return described.mention(key, described.describe(label, properties, thresholds), 0.5, 0.9)

    for index in range(3):
        run(jax.random.key(index), digits.label[index], digits.properties[index], digits.thresholds)
    assert len(traced) == 1


def test_bad_calls_are_refused_in_one_line():
    values, labels = np.ones((20, 4)), np.arange(20) % 10
    with pytest.raises(ValueError, match=r"^labels must hold every class, got no seven$"):
        described.thresholds_of(values, np.where(labels == 7, 1, labels))
    with pytest.raises(ValueError, match=r"^labels must have the shape \(20,\), got \(19,\)$"):
        described.thresholds_of(values, labels[1:])
    with pytest.raises(ValueError, match=r"^properties must have the shape \(20, 4\), got \(20, 3\)$"):
        described.thresholds_of(values[:, 1:], labels)
    with pytest.raises(ValueError, match=r"^labels must be in 0..9, got 10$"):
        described.thresholds_of(values, labels + 1)
    with pytest.raises(ValueError, match=r"^word must be one of"):
        described.meets("fat", 3, values[0], BY_HAND)
    with pytest.raises(ValueError, match=r"^label must be in \[0, 9\], got 10$"):
        described.describe(10, values[0], BY_HAND)
    with pytest.raises(ValueError, match=r"^properties must have the shape \(4,\), got \(20, 4\)$"):
        described.describe(1, values, BY_HAND)
    with pytest.raises(TypeError, match=r"^thresholds must be Thresholds"):
        described.describe(1, values[0], None)
