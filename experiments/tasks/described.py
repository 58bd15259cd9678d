"""The handwritten digits told by sentences: y is the tokens of "a thin seven leaning left"."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from cfgjax import conditions, data
from cfgjax.conditions import Tokens
from cfgjax.data import described, sentences
from cfgjax.data.described import Description, Thresholds
from cfgjax.models import SequenceEmbedding
from cfgjax.types import Array, Tree
from experiments.cli.main import UserError
from experiments.config.kinds import DescribedDigits
from experiments.config.schema import Experiment
from experiments.evaluation import described as report
from experiments.tasks import digits
from experiments.tasks.conditions import Conditions, Words, all_known
from experiments.tasks.digits import Digits
from experiments.tasks.task import Example, Reads, Task, TaskFacts

SHOWN = (
    "a seven",
    "a thin seven",
    "a bold seven",
    "a narrow three",
    "a wide three",
    "a short six",
    "a tall six",
    "a one leaning left",
    "a one leaning right",
    "a bold three leaning right",
)
"""The prompts of which samples are drawn where none are given; the last is of no training image."""
_LENGTH = sentences.MOST_TOKENS


def _encoded(option: str, prompts: Words) -> Tree:
    """The tokens of prompts, as conditions [n, ...]."""
    try:
        ids, masks = zip(*(sentences.encode(prompt, _LENGTH) for prompt in prompts), strict=True)
    except ValueError as error:
        raise UserError(str(error).replace("prompt", option, 1)) from None
    return all_known(Tokens(jnp.stack(ids), jnp.stack(masks)))


def _decoded(ys: Tree) -> list[str]:
    tokens = ys.value
    return [sentences.decode(ids) for ids in jnp.where(tokens.mask, tokens.values, 0)]


def conditions_of(settings: DescribedDigits) -> Conditions:
    """Sentences as conditions."""
    nothing = Tokens(jnp.zeros(_LENGTH, jnp.int32), jnp.zeros(_LENGTH, bool))

    def embedding(width: int) -> linen.Module:
        return SequenceEmbedding(
            width, len(sentences.VOCABULARY), positions=settings.positions, depth=settings.encoder_depth
        )

    return Conditions(
        null=conditions.unknown(nothing),
        rows=_encoded("prompt", SHOWN),
        numbers=np.arange(len(SHOWN)),
        texts=SHOWN,
        parts={"prompt": _encoded},
        join=lambda given: given["prompt"],
        labels=lambda ys: np.zeros(len(ys.is_known), np.int32),
        stored=lambda ys: np.asarray(_decoded(ys)),
        names=lambda ys: [text.replace(" ", "-") for text in _decoded(ys)],
        embedding=embedding,
    )


def facts_of(experiment: Experiment, settings: DescribedDigits) -> TaskFacts:
    """What sampling needs to know of described digits."""
    return digits.facts_of(experiment, conditions_of(settings))


def _example(settings: DescribedDigits) -> Example:
    def example(key: Array, drawn: tuple[Array, Description]) -> tuple[Array, Tree]:
        pixels, description = drawn
        said = described.mention(key, description, settings.rate_of_words, settings.rate_of_class)
        return data.normalize(pixels), conditions.known(Tokens(*sentences.tokens(said, _LENGTH)))

    return example


def descriptions_of(its: Digits, thresholds: Thresholds) -> Description:
    """All that can be said of each of n digits, [n, ...]."""
    describe: Any = jax.vmap(partial(described.describe, thresholds=thresholds))
    return describe(its.images.label, its.properties)


def task_of(experiment: Experiment, settings: DescribedDigits, reads: Reads) -> Task:
    """The task of described digits; images that have a combination of ``sentences.HELD_OUT`` are not learned from.

    Raises:
        DataError: the digits are not prepared.
        UserError: they are not as the experiment says.
    """
    told = conditions_of(settings)
    if reads == "shapes":
        one = jax.eval_shape(lambda: Description(jnp.int32(0), jnp.zeros(len(described.WORDS), jnp.int32)))
        return digits.from_settings(experiment, told, _example(settings), one)
    train, test = digits.read(experiment.data_dir)
    thresholds = described.thresholds_of(train.properties, train.images.label)
    is_learned = ~np.asarray(jax.vmap(sentences.is_held_out)(descriptions_of(train, thresholds)))
    known = report.Sets(train, is_learned, test, thresholds)
    return digits.from_data(
        experiment,
        told,
        _example(settings),
        lambda its: descriptions_of(its, thresholds),
        train.take(np.flatnonzero(is_learned)),
        test,
        lambda run, options, out_dir: report.evaluate(run, digits.IMAGES, known, options, out_dir),
    )
