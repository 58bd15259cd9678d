"""What the columns of a folder's metadata say of a picture, as conditions: y is a dict of label, numbers and text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from cfgjax import conditions
from cfgjax.conditions import Known
from cfgjax.data.latents import Spread
from cfgjax.models import Conditioning, LabelEmbedding, SequenceEmbedding, VectorEmbedding
from cfgjax.types import Null, Tree
from experiments.cli.main import UserError
from experiments.config.kinds import ConditionedData, Said
from experiments.tasks import properties
from experiments.tasks.conditions import Conditions, Parse, Words, count_of
from experiments.tasks.label_names import labels_called, numbers_of
from experiments.tasks.properties import standardised
from experiments.tasks.texts import Form, Read, Tokenizer, asked, by_tokenizer, by_words

OPTIONS = {"text": "prompt", "label": "labels", "numbers": "properties"}
"""The conditions by their names in y -> the options of ``experiments.sample`` that give them, the first one first."""
_UNREAD = (
    "what this run draws unasked is of stored embeddings, which its data alone hold; give --prompt, and by --tokenizer "
    "the function that makes vectors of it"
)
_MOST_NUMBER = 1e30
_LONGEST_FILE_NAME = 60


def names_of(settings: ConditionedData) -> tuple[str, ...]:
    """The names of the conditions that are asked for, at least one.

    Raises:
        UserError: none, a column that is asked for twice, or more than one way to read texts.
    """
    if settings.embeddings is not None and (settings.text, settings.tokenizer) != (None, None):
        raise UserError("data.embeddings are in the place of data.text and data.tokenizer; give one of them")
    if settings.tokenizer is not None and settings.text is None:
        raise UserError("data.tokenizer reads data.text, of which no column is given")
    columns = [*settings.numbers, *(name for name in (settings.label, settings.text) if name is not None)]
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise UserError(f"column {twice[0]!r} is asked for twice, among data.label, data.numbers and data.text")
    is_asked = {
        "text": settings.text is not None or settings.embeddings is not None,
        "label": settings.label is not None,
        "numbers": bool(settings.numbers),
    }
    names = tuple(name for name in OPTIONS if is_asked[name])
    if not names:
        raise UserError("data.label, data.numbers, data.text or data.embeddings must say what pictures are told by")
    return names


def is_told(settings: ConditionedData) -> bool:
    """Whether the settings tell what reading the folder would: shape, classes, spread and tokens.

    Raises:
        UserError: they do not fit each other.
    """
    names, form = names_of(settings), (settings.vocabulary, settings.num_tokens, settings.token_width)
    needs = [settings.shape, settings.num_classes, settings.examples]
    needs += [settings.mean, settings.deviation] if "numbers" in names else []
    needs += [settings.length, next((each for each in form if each is not None), None)] if "text" in names else []
    if None in needs:
        return False
    sizes = {len(each) for each in (settings.mean, settings.deviation) if each is not None}
    sizes |= {len(each.numbers) for each in settings.examples or ()}
    if sizes != {len(settings.numbers)} or any(value <= 0 for value in settings.deviation or ()):
        raise UserError("data.mean, data.deviation and data.examples must have a number for each of data.numbers")
    if any((each.label is None) == ("label" in names) for each in settings.examples or ()):
        raise UserError("data.examples must have a label where there is data.label, and else none")
    if any(each.label is not None and each.label >= (settings.num_classes or 0) for each in settings.examples or ()):
        raise UserError(f"data.examples must have labels under data.num_classes {settings.num_classes}")
    return True


def label_texts_of(settings: ConditionedData) -> tuple[str, ...]:
    """What the classes are called."""
    names, count = settings.label_names, settings.num_classes or 1
    return names if names is not None and len(names) == count else numbers_of(count)


def spread_of(settings: ConditionedData) -> Spread:
    """Means and standard deviations of the numbers."""
    return Spread(np.asarray(settings.mean or (), np.float64), np.asarray(settings.deviation or (), np.float64))


def form_of(settings: ConditionedData) -> Form:
    """What the tokens of the texts are."""
    num_tokens = settings.num_tokens if settings.vocabulary is None else len(settings.vocabulary) + 1
    return Form(settings.length or 1, num_tokens, settings.token_width)


def reader_of(settings: ConditionedData, tokenizer: Tokenizer | None, is_strict: bool) -> Read | None:
    """How texts are read; None where that takes a function that is not given."""
    if tokenizer is not None:
        return by_tokenizer(tokenizer)
    return None if settings.vocabulary is None else by_words(settings.vocabulary, is_strict)


class _Columns(NamedTuple):
    """The functions of ``Conditions``, by the settings."""

    settings: ConditionedData
    names: tuple[str, ...]
    tokenizer: Tokenizer | None

    @property
    def null(self) -> dict[str, Tree]:
        """What takes the place of y."""
        settings = self.settings
        nulls = {"label": settings.num_classes, "numbers": conditions.unknown(jnp.zeros(len(settings.numbers)))}
        nulls |= {"text": conditions.unknown(form_of(settings).nothing)} if "text" in self.names else {}
        return {name: nulls[name] for name in self.names}

    @property
    def reads_texts(self) -> bool:
        """Whether texts can be read here."""
        return reader_of(self.settings, self.tokenizer, is_strict=False) is not None

    def nulls(self, count: int) -> dict[str, Tree]:
        """n nulls."""
        return jax.tree.map(lambda leaf: np.broadcast_to(np.asarray(leaf), (count, *np.shape(leaf))), self.null)

    def labels_asked(self, option: str, words: Words) -> np.ndarray:
        """The labels that words call."""
        return np.asarray(labels_called(option, words, label_texts_of(self.settings)), np.int32)

    def text_asked(self, option: str, prompts: Words) -> Tree:
        """The tokens of prompts."""
        read = reader_of(self.settings, self.tokenizer, is_strict=True)
        if read is None and self.settings.tokenizer is not None:
            raise UserError(f"{option} is read by {self.settings.tokenizer}, which is given by --tokenizer alone")
        if read is None:
            raise UserError(
                f"{option} needs a --tokenizer MODULE:FUNCTION, text -> vectors of width {self.settings.token_width}: "
                "this run learned from stored embeddings, and holds no way from a text to them"
            )
        return asked(form_of(self.settings), read, option, prompts)

    def parts(self) -> dict[str, Parse]:
        """How the words of each option are read."""
        of_numbers = properties.reader_of(spread_of(self.settings), self.settings.numbers, _MOST_NUMBER)
        ways = {"text": self.text_asked, "label": self.labels_asked, "numbers": of_numbers}
        return {OPTIONS[name]: ways[name] for name in self.names}

    def join(self, given: Mapping[str, Tree]) -> dict[str, Tree]:
        """What was asked for, and null in the place of what was not.

        Raises:
            UserError: a part, where training dropped none by itself.
        """
        found = {name: given[OPTIONS[name]] for name in self.names if OPTIONS[name] in given}
        missing = [f"--{OPTIONS[name]}" for name in self.names if name not in found]
        if missing and self.settings.drop_each == 0:
            own = " and ".join(f"--{option}" for option in given)
            raise UserError(
                f"{own} alone was never learned: conditions were dropped together only (data.drop_each 0); give "
                f"{' and '.join(missing)}, too"
            )
        return self.nulls(count_of(next(iter(found.values())))) | found

    def negative(self, part: Tree) -> Null:
        """Y with another first part."""
        name = self.names[0]
        return lambda y: {**y, name: jax.tree.map(jnp.asarray, part)}

    def said(self, examples: Sequence[Said], stored: Tree | None) -> dict[str, Tree]:
        """What is said of examples; of texts that cannot be read here, null."""
        found: dict[str, Tree] = self.nulls(len(examples))
        if "label" in self.names:
            found["label"] = np.array([each.label for each in examples], np.int32)
        if "numbers" in self.names:
            found["numbers"] = standardised(np.array([each.numbers for each in examples]), spread_of(self.settings))
        read = reader_of(self.settings, self.tokenizer, is_strict=False) if self.settings.text is not None else None
        if stored is not None:
            found["text"] = stored
        elif read is not None:
            form = form_of(self.settings)
            found["text"] = form.stacked([form.require("text", read("text", each.text or "")) for each in examples])
        return found

    def decoded(self, text: Known) -> list[str]:
        """The words of n texts, where tokens are words; else nothing of each."""
        words = self.settings.vocabulary
        if words is None:
            return [""] * len(text.is_known)
        ids = np.where(text.value.mask, text.value.values, 0)
        return [" ".join(words[token - 1] for token in row if token) for row in ids.tolist()]

    def stored(self, ys: Mapping[str, Tree]) -> dict[str, np.ndarray]:
        """Arrays of n conditions: label, numbers in their own units (NaN where not known), and text or its tokens."""
        found = {"label": np.asarray(ys["label"])} if "label" in ys else {}
        if "numbers" in ys:
            spread, (values, is_known) = spread_of(self.settings), ys["numbers"]
            own = spread.mean + spread.deviation * np.asarray(values)
            found["numbers"] = np.where(np.asarray(is_known)[:, np.newaxis], own, np.nan)
        if "text" in ys and self.settings.vocabulary is not None:
            found["text"] = np.asarray(self.decoded(ys["text"]))
        elif "text" in ys:
            tokens = ys["text"].value
            found |= {"text_tokens": np.asarray(tokens.values), "text_mask": np.asarray(tokens.mask)}
        return found

    def file_names(self, ys: Mapping[str, Tree]) -> list[str]:
        """Words of each condition, of which a file's name is made."""
        texts = self.decoded(ys["text"]) if "text" in ys else [""] * count_of(ys)
        names = (*label_texts_of(self.settings), "null")
        classes = [names[y] for y in np.asarray(ys["label"]).tolist()] if "label" in ys else texts
        words = [text or name for text, name in zip(texts, classes, strict=True)]
        return [re.sub(r"[^A-Za-z0-9]+", "-", word)[:_LONGEST_FILE_NAME].strip("-") or "sample" for word in words]

    def labels(self, ys: Mapping[str, Tree]) -> np.ndarray:
        """The label of each of n conditions, 0 where there are no classes."""
        return np.asarray(ys["label"]) if "label" in ys else np.zeros(count_of(ys), np.int32)

    def embedding(self, width: int) -> linen.Module:
        """The module of all of y."""
        settings, form, parts = self.settings, form_of(self.settings), {}
        for name in self.names:
            if name == "label":
                parts[name] = LabelEmbedding(settings.num_classes or 1, width)
            elif name == "numbers":
                parts[name] = VectorEmbedding(width)
            else:
                parts[name] = SequenceEmbedding(
                    width, form.num_tokens, positions=settings.positions, depth=settings.encoder_depth
                )
        return Conditioning(parts)


def _text_of(settings: ConditionedData, example: Said, number: int) -> str:
    """What an example is called in pictures."""
    values = dict(zip(settings.numbers, example.numbers, strict=True))
    label = None if example.label is None else label_texts_of(settings)[example.label]
    words = [label, example.text, *(f"{name} {value:.3g}" for name, value in values.items())]
    return ", ".join(word for word in words if word) or f"picture {number} held out"


def conditions_of(
    settings: ConditionedData, tokenizer: Tokenizer | None = None, stored: Tree | None = None
) -> Conditions:
    """The columns that settings ask for as conditions.

    Args:
        settings: with what was found in the folder.
        tokenizer: reads texts, where the words of the training texts do not.
        stored: stored embeddings of the examples, as conditions; without them those have no text.
    """
    names, examples = names_of(settings), settings.examples or ()
    columns = _Columns(settings, names, tokenizer)
    is_read = stored is not None or (settings.text is not None and columns.reads_texts)
    unread = ", its text not read" if "text" in names and not is_read else ""
    return Conditions(
        null=columns.null,
        rows=columns.said(examples, stored),
        numbers=np.arange(len(examples)),
        texts=tuple(_text_of(settings, each, number) + unread for number, each in enumerate(examples)),
        parts=columns.parts(),
        join=columns.join,
        labels=columns.labels,
        stored=columns.stored,
        names=columns.file_names,
        unread=_UNREAD if settings.embeddings is not None and stored is None else "",
        negative=columns.negative if len(names) > 1 else None,
        rates=dict.fromkeys(names, settings.drop_each) if len(names) > 1 and settings.drop_each > 0 else None,
        embedding=columns.embedding,
    )
