"""Sentences and their tokens: one grammar there and back, one-line refusals, and combinations kept from training."""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax.data import described, sentences
from cfgjax.data.described import CLASSES, NO_CLASS, WORDS, Description
from cfgjax.data.sentences import HELD_OUT, MOST_TOKENS, VOCABULARY
from tests.support.digits import train_digits

SAID = {
    "a thin seven leaning left": (7, (-1, 0, 0, -1)),
    "a bold three leaning right": (3, (1, 0, 0, 1)),
    "a thin narrow short digit leaning right": (NO_CLASS, (-1, -1, -1, 1)),
    "a bold wide tall eight": (8, (1, 1, 1, 0)),
    "an eight": (8, (0, 0, 0, 0)),
    "an eight leaning left": (8, (0, 0, 0, -1)),
    "a zero": (0, (0, 0, 0, 0)),
    "a thin digit": (NO_CLASS, (-1, 0, 0, 0)),
    "a digit": (NO_CLASS, (0, 0, 0, 0)),
}
EVERY = [(label, words) for label in range(NO_CLASS + 1) for words in itertools.product((-1, 0, 1), repeat=len(WORDS))]
"""All 891 descriptions."""


def _description(label, words):
    return Description(jnp.int32(label), jnp.array(words, jnp.int32))


def _numbers(description):
    return int(description.label), tuple(description.words.tolist())


@cache
def _texts():
    return [sentences.sentence(Description(np.int32(label), np.array(words))) for label, words in EVERY]


def _all():
    return Description(*(jnp.array(each, jnp.int32) for each in zip(*EVERY, strict=True)))


@pytest.mark.parametrize(("text", "said"), SAID.items())
def test_sentences_by_hand(text, said):
    assert sentences.sentence(_description(*said)) == text
    assert _numbers(sentences.parse(text)) == said


def test_every_description_has_a_sentence_of_its_own_that_parses_back():
    texts = _texts()
    assert len(set(texts)) == len(EVERY) == 891
    assert [_numbers(sentences.parse(text)) for text in texts] == EVERY


def test_tokens_by_hand():
    """One for each word and one for the class, then padding."""
    ids, mask = sentences.encode("A thin seven, leaning left.", 6)
    assert [VOCABULARY[token] for token in ids.tolist()] == ["thin", "seven", "leaning left", "", "", ""]
    assert mask.tolist() == [True, True, True, False, False, False]
    assert (ids.dtype, mask.dtype) == (jnp.int32, jnp.bool_)
    assert VOCABULARY[0] == "" and len(set(VOCABULARY)) == len(VOCABULARY) == 20


def test_tokens_of_every_description_are_the_sentences_words():
    ids, mask = jax.jit(jax.vmap(lambda said: sentences.tokens(said, 7)))(_all())
    assert ids.shape == mask.shape == (len(EVERY), 7)
    np.testing.assert_array_equal(mask, np.asarray(ids) != 0)
    assert np.all(np.diff(np.asarray(mask, int)) <= 0)  # padding comes last
    assert np.asarray(mask).sum(axis=1).max() == MOST_TOKENS
    texts = [" ".join(VOCABULARY[token] for token in row if token) for row in np.asarray(ids)]
    assert texts == [text.removeprefix("an ").removeprefix("a ") for text in _texts()]


def test_a_prompt_is_encoded_as_its_description_and_decoded():
    ids, mask = jax.jit(jax.vmap(lambda said: sentences.tokens(said, 7)))(_all())
    for index in range(0, len(EVERY), 13):
        text = sentences.decode(ids[index])
        assert _numbers(sentences.parse(text)) == EVERY[index]
        found = sentences.encode(text, 7)
        np.testing.assert_array_equal(found[0], ids[index])
        np.testing.assert_array_equal(found[1], mask[index])


@pytest.mark.parametrize(
    "prompt", ["thin seven leaning left", "Leaning  left, SEVEN, thin.", "a seven a thin seven leaning left\n"]
)
def test_prompts_that_say_the_same_have_the_same_tokens(prompt):
    np.testing.assert_array_equal(sentences.encode(prompt, 5)[0], sentences.encode("a thin seven leaning left", 5)[0])


def test_a_word_alone_is_a_prompt():
    """As one leads away from, without a class."""
    assert _numbers(sentences.parse("thin")) == SAID["a thin digit"]


REFUSED = {
    "a thim sevn": "prompt has the unknown word 'thim': the nearest known are thin",
    "a thin sevn": "prompt has the unknown word 'sevn': the nearest known are seven",
    "a seven leaning lfet": "prompt has the unknown word 'leaning lfet': the nearest known are leaning left",
    "a seven leaning": "prompt has the unknown word 'leaning': the nearest known are leaning left, leaning right",
    "7": f"prompt has the unknown word '7': known are {', '.join(VOCABULARY[1:])}",
    "": "prompt must say something, as 'a digit' does, got ''",
    " a, ": "prompt must say something, as 'a digit' does, got ' a, '",
    "a thin bold seven": "prompt must say one of 'thin' and 'bold', got both",
    "a seven three": "prompt must say one of 'seven' and 'three', got both",
    "a seven digit": "prompt must say one of 'seven' and 'digit', got both",
}


@pytest.mark.parametrize(("prompt", "message"), REFUSED.items())
def test_what_does_not_parse_is_refused_in_one_line(prompt, message):
    with pytest.raises(ValueError) as caught:
        sentences.encode(prompt, 8)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_a_long_unknown_word_is_cut_in_the_message():
    with pytest.raises(ValueError, match=r"unknown word 'x{40}'"):
        sentences.parse("x" * 10_000)


def test_a_prompt_that_is_too_long_is_refused():
    assert sentences.encode("a thin seven leaning left", 3)[0].tolist() == [1, 16, 7]
    with pytest.raises(ValueError, match=r"^prompt must have at most 2 tokens, got 3: 'a thin seven leaning left'$"):
        sentences.encode("a thin seven leaning left", 2)
    with pytest.raises(ValueError, match="length must be at least 5, got 4"):
        sentences.tokens(_description(7, (0, 0, 0, 0)), 4)


@pytest.mark.parametrize("ids", [[1, 2], [20], [-1, 9], [[9]], [0, 0]])
def test_ids_of_no_sentence_are_refused(ids):
    with pytest.raises(ValueError, match=r"^(ids must be a sequence in 0\.\.19|prompt must say)"):
        sentences.decode(jnp.array(ids))


COMBINATIONS = [_numbers(sentences.parse(prompt)) for prompt in HELD_OUT]


def test_held_out_are_a_class_and_two_words_once_for_each_class():
    assert [label for label, _ in COMBINATIONS] == list(range(10))
    assert all(np.count_nonzero(words) == 2 for _, words in COMBINATIONS)
    assert [sentences.sentence(sentences.parse(prompt)) for prompt in HELD_OUT] == list(HELD_OUT)
    used = np.array([words for _, words in COMBINATIONS])
    assert {2, 3} == {int((used[:, place] == code).sum()) for place in range(4) for code in (-1, 1)}


def _is_held_out(label, words):
    """By hand: the class's combination is among the words."""
    return label != NO_CLASS and all(
        each in (0, said) for each, said in zip(COMBINATIONS[label][1], words, strict=True)
    )


def test_held_out_is_what_says_a_combination():
    found = jax.jit(jax.vmap(sentences.is_held_out))(_all())
    assert found.tolist() == [_is_held_out(label, words) for label, words in EVERY]
    assert int(found.sum()) == 10 * 9
    assert bool(sentences.is_held_out(sentences.parse("a thin tall seven leaning left")))
    assert not bool(sentences.is_held_out(sentences.parse("a thin seven")))


def test_every_class_every_word_and_every_pair_of_them_stays_in_training():
    digits = train_digits()
    is_held_out = np.asarray(jax.jit(jax.vmap(sentences.is_held_out))(digits.description))
    label, words = np.asarray(digits.label), np.asarray(digits.description.words)
    for number, combination in enumerate(HELD_OUT):
        said = [int(c) for c in sentences.parse(combination).words]
        is_one = (label == number) & np.all((words == said) | (np.array(said) == 0), axis=1)
        assert is_one.sum() >= 10 and np.all(is_held_out[is_one])
    assert 0.1 < is_held_out.mean() < 0.13
    for number, place, code in itertools.product(range(10), range(4), (-1, 1)):
        assert np.sum((label == number) & (words[:, place] == code) & ~is_held_out) >= 20, (number, place, code)


def test_no_sentence_that_is_drawn_in_training_holds_a_combination():
    digits = train_digits()

    def drawn(key, said):
        return sentences.is_held_out(described.mention(key, said, 0.8, 0.9)), sentences.is_held_out(said)

    keys = jax.random.split(jax.random.key(0), len(digits.label))
    in_sentence, in_image = map(np.asarray, jax.jit(jax.vmap(drawn))(keys, digits.description))
    assert np.all(in_image[in_sentence]) and 0 < in_sentence.sum() < in_image.sum()


def test_other_combinations():
    """Of two words without a class, or of a class and one word."""
    of_words = ("thin wide",)
    assert bool(sentences.is_held_out(sentences.parse("a thin wide six"), of_words))
    assert not bool(sentences.is_held_out(sentences.parse("a thin six"), of_words))
    assert bool(sentences.is_held_out(sentences.parse("a thin short six"), ("thin wide", "a thin six")))
    for alone in ("a thin digit", "seven", "a digit"):
        with pytest.raises(ValueError, match=f"^combinations must say two things or more each, got '{alone}'$"):
            sentences.is_held_out(sentences.parse("a six"), ("a thin six", alone))
    with pytest.raises(ValueError, match="unknown word 'fat'"):
        sentences.is_held_out(sentences.parse("a six"), ("a fat six",))


def test_names_are_said_once():
    assert VOCABULARY[9:19] == CLASSES
    assert VOCABULARY[1:9] == tuple(word for pair in WORDS for word in pair)
