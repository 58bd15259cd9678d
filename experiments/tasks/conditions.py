"""What a run's field is told beside x and t: labels, or conditions of another kind, as functions and facts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from cfgjax.conditions import Known
from cfgjax.types import Null, Tree
from experiments.cli.main import UserError
from experiments.config.schema import Experiment
from experiments.tasks.label_names import labels_called

Words = tuple[str, ...]
Parse = Callable[[str, Words], Tree]
"""(an option's name, n words of the command line) -> n conditions, a tree of [n, ...]."""


class Conditions(NamedTuple):
    """What a field is told.

    Attributes:
        null: what takes a condition's place, in training and in sampling alike.
        rows: the conditions of which samples are drawn where none are asked for, a tree of [n, ...].
        numbers: what these are called by number, [n]: labels, or their places.
        texts: what these are called, n.
        parts: by the names of the options of ``experiments.sample`` that give a condition, how their words are read;
            the first one gives a condition to lead away from, too.
        join: what the parts gave, each [n, ...], by name -> n conditions.
        labels: n conditions -> the label of each, [n], K for null; 0 for each where they have no labels.
        stored: n conditions -> what an .npz has of them, as the task's samples take it: an array y, or arrays by names.
        names: n conditions -> n names, of which those of files are made.
        unread: why the rows lack a part that only the data hold, in words; else empty.
        negative: of several conditions (what the first part gives of one) -> what to lead away from.
        rates: of several conditions, with which probability each is dropped by itself in training, a tree that y's
            begins with; None where all are dropped together alone.
        embedding: the width of a network's vectors -> the module that embeds a condition; None for a label.
    """

    null: Null
    rows: Tree
    numbers: np.ndarray
    texts: tuple[str, ...]
    parts: Mapping[str, Parse]
    join: Callable[[dict[str, Tree]], Tree]
    labels: Callable[[Tree], np.ndarray]
    stored: Callable[[Tree], Any]
    names: Callable[[Tree], list[str]]
    unread: str = ""
    negative: Callable[[Tree], Null] | None = None
    rates: Tree = None
    embedding: Callable[[int], linen.Module] | None = None


def count_of(conditions: Tree) -> int:
    """n of conditions [n, ...]."""
    return len(jax.tree.leaves(conditions)[0])


def all_known(values: Tree) -> Known:
    """n values, a tree of [n, ...], as conditions that are known."""
    arrays = jax.tree.map(jnp.asarray, values)
    return Known(arrays, jnp.ones(count_of(arrays), bool))


def take(conditions: Tree, indices: np.ndarray) -> Tree:
    """Some of n conditions, by their places.

    >>> take({"label": np.array([3, 5])}, np.array([1, 0, 1]))
    {'label': array([5, 3, 5])}
    """
    return jax.tree.map(lambda leaf: np.asarray(leaf)[indices], conditions)


def concatenated(parts: Sequence[Tree]) -> Tree:
    """The conditions of several trees [n, ...], one after another."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def in_turn(conditions: Tree, count: int) -> Tree:
    """So many conditions: those given, again and again."""
    return take(conditions, np.arange(count) % count_of(conditions))


def unasked(known: Conditions) -> Tree:
    """The conditions that are drawn where none are asked for, [n, ...].

    Raises:
        UserError: what is said there cannot be read here.
    """
    if known.unread:
        raise UserError(known.unread)
    return known.rows


def asked_for(known: Conditions, words: Mapping[str, Words]) -> Tree | None:
    """The conditions that options ask for, [n, ...], n the most words of one; None where none asks.

    Raises:
        UserError: an option that gives no condition of this kind, or words that it does not know.
    """
    for name in words:
        if words[name] and name not in known.parts:
            own = " or ".join(f"--{own}" for own in known.parts)
            raise UserError(f"{name} is nothing that this run's field is told; give {own}")
    given = {name: parse(name, words[name]) for name, parse in known.parts.items() if words.get(name)}
    if not given:
        return None
    count = max(map(count_of, given.values()))
    return known.join({name: in_turn(its, count) for name, its in given.items()})


def negative(known: Conditions, word: str) -> Null:
    """What an option asks to lead away from: a condition, or of several at once y with another first part.

    Raises:
        UserError: words that are not known.
    """
    name, parse = next(iter(known.parts.items()))
    given: Any = parse("negative", (word,))
    if known.negative is not None:
        return known.negative(jax.tree.map(lambda leaf: leaf[0], given))
    return jax.tree.map(lambda leaf: leaf[0], known.join({name: given}))


_MEANINGS = ("vocabulary", "tokenizer", "numbers", "embeddings")


def what_is_told(experiment: Experiment, known: Conditions) -> dict[str, object]:
    """What must be the same where one network serves for another: the form of conditions, and what they mean."""
    told = {f"data.{name}": getattr(experiment.data, name, None) for name in _MEANINGS}
    return {"conditions": str(jax.tree.map(np.shape, known.null)), **told}


def _file_names(null: int, labels: np.ndarray) -> list[str]:
    return ["label-null" if y == null else f"label-{y}" for y in labels.tolist()]


def of_labels(num_classes: int, present: np.ndarray, texts: tuple[str, ...]) -> Conditions:
    """Labels as conditions.

    Args:
        num_classes: K, the null label.
        present: the labels that have training examples.
        texts: what all K are called.
    """

    def called(option: str, words: Words) -> np.ndarray:
        return np.asarray(labels_called(option, words, texts), np.int32)

    return Conditions(
        null=num_classes,
        rows=present.astype(np.int32),
        numbers=present,
        texts=tuple(texts[y] for y in present),
        parts={"labels": called},
        join=lambda given: given["labels"],
        labels=np.asarray,
        stored=np.asarray,
        names=partial(_file_names, num_classes),
    )
