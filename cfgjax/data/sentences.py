"""Sentences for handwritten digits, "a thin seven leaning left", and their tokens.

(S1) The grammar: a or an, the words of weight, width and height, the class or "digit", the word of slant. What is not
     said is left out; "a digit" says nothing.
(S2) The tokens are what is said, one for each word and one for the class, in that order; the article has none.
(S3) Some combinations of a class and two words are kept from training (``HELD_OUT``): no sentence is learned of an
     image that has one, but each class and each word is met in others.
"""

from __future__ import annotations

import difflib
import re
from functools import cache, partial
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax.checks import require_integers, short_repr
from cfgjax.contracts import Contract, PositiveInt, at_least, checked
from cfgjax.data.described import CLASSES, NO_CLASS, WORDS, Description, KnownDescription, holds
from cfgjax.data.measured import PROPERTIES
from cfgjax.types import Array

VOCABULARY = ("", *(word for pair in WORDS for word in pair), *CLASSES, "digit")
"""The tokens by their ids, padding's, the words', the classes' and that of a class that is not said."""
MOST_TOKENS = len(WORDS) + 1
"""The number of tokens of the longest sentence."""
HELD_OUT = (
    "a bold zero leaning right",
    "a wide tall one",
    "a thin wide two",
    "a bold three leaning right",
    "a narrow tall four",
    "a short five leaning right",
    "a thin short six",
    "a thin seven leaning left",
    "a narrow short eight",
    "a narrow nine leaning left",
)
"""The combinations that are kept from training, one of each class."""

_ARTICLES = ("a", "an")
_FIRST_CLASS = 1 + 2 * len(WORDS)
_SLANT = PROPERTIES.index("slant")


def _place(token: int) -> tuple[int, int]:
    """The place of an id among the words and, last, the class; and what ``Description`` has there."""
    if token >= _FIRST_CLASS:
        return len(WORDS), token - _FIRST_CLASS
    index, is_high = divmod(token - 1, 2)
    return index, 2 * is_high - 1


def _said(description: Description) -> Array:
    """The ids at their five places in the sentence (S1), 0 where nothing is said, [5]."""
    words = description.words
    ids = jnp.where(words == 0, 0, 1 + 2 * jnp.arange(len(WORDS)) + (words > 0))
    noun = _FIRST_CLASS + description.label
    return jnp.concatenate([ids[:_SLANT], noun[jnp.newaxis], ids[_SLANT:]]).astype(jnp.int32)


@checked
def tokens(description: KnownDescription, length: Annotated[int, at_least(MOST_TOKENS)]) -> tuple[Array, Array]:
    """The sentence's ids [length] int32, padded by 0, and which of them are tokens, [length] of booleans.

    Args:
        description: what the sentence says.
        length: of the sequence, at least MOST_TOKENS; ``encode`` takes a shorter one where the prompt fits.
    """
    said = _said(description)
    ids = jnp.pad(said[jnp.argsort(said == 0, stable=True)], (0, length - MOST_TOKENS))
    return ids, ids != 0


@checked
def sentence(description: KnownDescription) -> str:
    """The description in words (S1); not under a transformation of JAX.

    >>> sentence(Description(jnp.int32(7), jnp.array([-1, 0, 0, -1])))
    'a thin seven leaning left'
    """
    text = " ".join(VOCABULARY[token] for token in _said(description).tolist() if token)
    return f"{'an' if text.startswith('eight') else 'a'} {text}"


def _token(word: str) -> int:
    """The id of a word of a prompt.

    Raises:
        ValueError: it is unknown; with the nearest known ones.
    """
    known = VOCABULARY[1:]
    if word in known:
        return VOCABULARY.index(word)
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    hint = f"the nearest known are {', '.join(near)}" if near else f"known are {', '.join(known)}"
    raise ValueError(f"prompt has the unknown word {word[:40]!r}: {hint}")


def _parsed(prompt: str) -> tuple[int, list[int]]:
    """The label and the four words that a prompt says, on the host."""
    text = " ".join(re.split(r"[\s,.]+", prompt.lower()))
    words = [word for word in re.findall(r"leaning \S+|\S+", text) if word not in _ARTICLES]
    if not words:
        raise ValueError(f"prompt must say something, as 'a digit' does, got {prompt[:40]!r}")
    found: dict[int, int] = {}
    for token in map(_token, words):
        other = found.setdefault(_place(token)[0], token)
        if other != token:
            raise ValueError(f"prompt must say one of {VOCABULARY[other]!r} and {VOCABULARY[token]!r}, got both")
    said = {place: _place(token)[1] for place, token in found.items()}
    return said.get(len(WORDS), NO_CLASS), [said.get(place, 0) for place in range(len(WORDS))]


@checked
def parse(prompt: str) -> Description:
    """What a prompt says: words of ``VOCABULARY`` in any order, in upper or lower case, with or without an article.

    Raises:
        ValueError: no words, unknown ones, with the nearest known, or two of one property or class.

    >>> sentence(parse("Seven, leaning left, thin"))
    'a thin seven leaning left'
    """
    label, words = _parsed(prompt)
    return Description(jnp.int32(label), jnp.array(words, jnp.int32))


@checked
def encode(prompt: str, length: PositiveInt) -> tuple[Array, Array]:
    """The tokens of a prompt, ids [length] int32 and mask [length] of booleans: those of ``tokens(parse(prompt))``.

    Prompts that say the same have the same tokens.

    Raises:
        ValueError: as ``parse``; a prompt of more than ``length`` tokens.
    """
    ids, mask = tokens(parse(prompt), max(length, MOST_TOKENS))
    count = int(mask.sum())
    if count > length:
        raise ValueError(f"prompt must have at most {length} tokens, got {count}: {prompt[:80]!r}")
    return ids[:length], mask[:length]


@checked
def decode(ids: Annotated[Array, Contract(require_integers)]) -> str:
    """The sentence of a sequence of ids [n], padded by 0.

    Raises:
        ValueError: ids that are of no sentence.
    """
    sequence = np.asarray(ids)
    if sequence.ndim != 1 or not np.all((sequence >= 0) & (sequence < len(VOCABULARY))):
        raise ValueError(f"ids must be a sequence in 0..{len(VOCABULARY) - 1}, got {short_repr(sequence)}")
    return sentence(parse(" ".join(VOCABULARY[token] for token in sequence if token)))


@cache
def _stacked(prompts: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """What n combinations say, [n] labels and [n, 4] words, on the host.

    Raises:
        ValueError: one that says one thing alone, which would be kept from training altogether.
    """
    labels, words = zip(*map(_parsed, prompts), strict=True)
    for prompt, label, codes in zip(prompts, labels, words, strict=True):
        if (label != NO_CLASS) + np.count_nonzero(codes) < 2:
            raise ValueError(f"combinations must say two things or more each, got {prompt[:80]!r}")
    return np.array(labels, np.int32), np.array(words, np.int32)


@checked
def is_held_out(description: KnownDescription, combinations: tuple[str, ...] = HELD_OUT) -> Array:
    """Whether a description holds a combination that is kept from training (S3), [] of booleans.

    Of an image asked with all that can be said of it, ``describe``; of a prompt with what it says, ``parse``.

    Args:
        description: what is said.
        combinations: prompts, each of which says two things or more, the class among them or not.

    Raises:
        ValueError: a combination that says one thing alone; errors of ``parse``.
    """
    labels, words = _stacked(tuple(combinations))
    return jax.vmap(partial(holds, description))(Description(jnp.asarray(labels), jnp.asarray(words))).any()
