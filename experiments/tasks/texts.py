"""Texts as tokens: by the words of the training texts, or by a function of the user's."""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from cfgjax.conditions import Known, Tokens
from cfgjax.data import check_memory
from cfgjax.types import Condition
from experiments.cli.functions import load_function
from experiments.cli.main import UserError
from experiments.config.schema import Experiment
from experiments.config.values import LONGEST_WORD, MOST_WORDS

Read = Callable[[str, str], np.ndarray]
"""(what is read, for a message; a text) -> its tokens: integers [n], or numbers [n, d]."""
_MOST_IDS = 10**6


class Tokenizer(NamedTuple):
    """A function of the user's, text -> integers [n] or numbers [n, d], and what it is called."""

    name: str
    function: Callable[[str], Any]


def loaded(experiment: Experiment, name: str | None) -> Tokenizer | None:
    """The tokenizer that --tokenizer names; None where the run needs none.

    What a config names is not imported.

    Raises:
        UserError: no such function, none given where the run's texts were read by one, or one where none can serve.
    """
    recorded = getattr(experiment.data, "tokenizer", None)
    if name is None and recorded is not None:
        raise UserError(
            f"tokenizer must be given: the texts of {experiment.run_dir} were read by {recorded}, which is code that "
            f"no config may name; --tokenizer {recorded} runs it"
        )
    if name is None:
        return None
    if recorded is None and getattr(experiment.data, "embeddings", None) is None:
        raise UserError(f"tokenizer is for a run whose texts were read by one, or of stored embeddings; got {name}")
    return Tokenizer(name, load_function("tokenizer", name))


def named(experiment: Experiment) -> Tokenizer | None:
    """The tokenizer that the experiment of a command line names, if it does; never for one that was read from a file.

    Raises:
        UserError: no such function.
    """
    name = getattr(experiment.data, "tokenizer", None)
    return None if name is None else Tokenizer(name, load_function("data.tokenizer", name))


def words_of(text: str) -> list[str]:
    """The words of a text: lower case, in composed letters, split at what is no letter, mark or number.

    >>> words_of("A red circle, 3 px_wide")
    ['a', 'red', 'circle', '3', 'px', 'wide']
    """
    composed = unicodedata.normalize("NFC", text.lower())
    return "".join(letter if unicodedata.category(letter)[0] in "LMN" else " " for letter in composed).split()


def vocabulary_of(texts: Iterable[str]) -> tuple[tuple[str, ...], int]:
    """The words of texts in order, and how many different ones are left out.

    Left out are those of over LONGEST_WORD letters and, of more than MOST_WORDS, the rarest.
    """
    counts = Counter(word for text in texts for word in words_of(text))
    usable = [word for word in counts if len(word) <= LONGEST_WORD]
    kept = sorted(usable, key=lambda word: (-counts[word], word))[:MOST_WORDS]
    return tuple(sorted(kept)), len(counts) - len(kept)


def by_words(vocabulary: Sequence[str], is_strict: bool) -> Read:
    """The reader by a vocabulary, whose words have the tokens from 1; others are left out, or refused if it is strict.

    Raises:
        UserError: of the reader: a word that is not known, with the nearest that are.
    """
    ids = {word: place for place, word in enumerate(vocabulary, 1)}

    def read(what: str, text: str) -> np.ndarray:
        words = words_of(text)
        unknown = [word for word in words if word not in ids] if is_strict else []
        if unknown:
            near = difflib.get_close_matches(unknown[0], vocabulary, n=3, cutoff=0.5)
            others = ", ".join(vocabulary[:20]) + (", ..." if len(vocabulary) > 20 else "")
            hint = f"the nearest known are {', '.join(near)}" if near else f"known are {others}"
            raise UserError(f"{what} has the unknown word {unknown[0][:40]!r}: {hint}")
        return np.array([ids[word] for word in words if word in ids], np.int32)

    return read


def _as_tokens(found: np.ndarray) -> np.ndarray | None:
    """What a tokenizer gave as tokens; None where it is none."""
    if found.size == 0 and found.ndim == 1:
        return found.astype(np.int32)
    if found.ndim == 1 and np.issubdtype(found.dtype, np.integer):
        return found.astype(np.int32) if 0 <= found.min() <= found.max() < _MOST_IDS else None
    if found.ndim in (1, 2) and np.issubdtype(found.dtype, np.floating) and found.shape[-1]:
        with np.errstate(over="ignore"):
            vectors = found.astype(np.float32).reshape(-1, found.shape[-1])
        return vectors if np.isfinite(vectors).all() else None
    return None


def by_tokenizer(tokenizer: Tokenizer) -> Read:
    """The reader by a function of the user's; one vector [d] is a text of one token.

    Raises:
        UserError: of the reader: a function that fails, or gives something else than tokens.
    """

    def read(what: str, text: str) -> np.ndarray:
        try:
            found = np.asarray(tokenizer.function(text))
        except Exception as error:  # it is the user's
            reason = (str(error).splitlines() or [""])[0][:200]
            raise UserError(
                f"tokenizer {tokenizer.name} failed at {what} {text[:60]!r}: {type(error).__name__}: {reason}"
            ) from None
        tokens = _as_tokens(found)
        if tokens is None:
            raise UserError(
                f"tokenizer {tokenizer.name} must give integers [n] in 0..{_MOST_IDS - 1} or finite numbers [n, d], "
                f"got {found.dtype} of shape {found.shape} for {what} {text[:60]!r}"
            )
        return tokens

    return read


class Form(NamedTuple):
    """What the tokens of a run's texts are.

    Attributes:
        length: the most of a text.
        num_tokens: the number of integers; None where they are vectors.
        width: d of vectors; None where they are integers.
    """

    length: int
    num_tokens: int | None
    width: int | None

    @property
    def nothing(self) -> Tokens:
        """A text of which no token is there."""
        is_there = jnp.zeros(self.length, bool)
        if self.width is None:
            return Tokens(jnp.zeros(self.length, jnp.int32), is_there)
        return Tokens(jnp.zeros((self.length, self.width), jnp.float32), is_there)

    def require(self, what: str, tokens: np.ndarray) -> np.ndarray:
        """The tokens themselves, once they are found to be of the form, but for their number.

        Raises:
            UserError: they are not.
        """
        if self.width is None:
            is_right = tokens.ndim == 1 and (len(tokens) == 0 or tokens.max() < (self.num_tokens or 0))
            wanted = f"integers under {self.num_tokens}"
        else:
            is_right = len(tokens) == 0 or (tokens.ndim == 2 and tokens.shape[1] == self.width)
            wanted = f"vectors of width {self.width}"
        if not is_right:
            got = f"integers up to {tokens.max()}" if tokens.ndim == 1 else f"vectors of width {tokens.shape[1]}"
            raise UserError(f"{what} must be read as {wanted}, as this run's texts were; got {got}")
        return tokens

    def stacked(self, rows: Sequence[np.ndarray]) -> Known:
        """The tokens of n texts as conditions [n, ...], cut and padded; a text without tokens is not known."""
        shape = (len(rows), self.length) if self.width is None else (len(rows), self.length, self.width)
        check_memory("data.text (texts x length x width)", 4 * math.prod(shape))
        values: Any = np.zeros(shape, np.int32 if self.width is None else np.float32)
        mask: Any = np.zeros(shape[:2], bool)
        for row, tokens in enumerate(rows):
            kept = tokens[: self.length]
            if len(kept):
                values[row, : len(kept)], mask[row, : len(kept)] = kept, True
        return Known(Tokens(values, mask), mask.any(axis=1))


def form_of(read: Sequence[np.ndarray], length: int) -> Form:
    """The form of tokens that were read.

    Raises:
        UserError: integers for one text and vectors for another, vectors of several widths, or none at all.
    """
    kinds = {each.shape[1:] for each in read if len(each)}
    if len(kinds) != 1:
        raise UserError(f"tokenizer must give tokens of one kind for all texts, got those of shapes {sorted(kinds)}")
    (inner,) = kinds
    if inner:
        return Form(length, None, inner[0])
    return Form(length, 1 + max(int(each.max()) for each in read if len(each)), None)


def asked(form: Form, read: Read, option: str, prompts: Sequence[str]) -> Condition:
    """The conditions [n, ...] of prompts.

    Raises:
        UserError: one without tokens, or with more than the run's texts have; errors of the reader.
    """
    rows = []
    for prompt in prompts:
        tokens = form.require(option, read(option, prompt))
        if not 0 < len(tokens) <= form.length:
            raise UserError(f"{option} must have 1 to {form.length} tokens, got {len(tokens)}: {prompt[:60]!r}")
        rows.append(tokens)
    return form.stacked(rows)
