"""The report on digits told by sentences: is it the digit that was asked, and are the words met?"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import metrics
from cfgjax.conditions import Known, Tokens
from cfgjax.data import sentences
from cfgjax.data.described import CLASSES, WORDS, Description, Thresholds, describe
from cfgjax.data.measured import PROPERTIES
from experiments.config.kinds import ImageData
from experiments.evaluation.feature_classifier import FeatureClassifier, class_accuracy, feature_classifier_of
from experiments.evaluation.guided_samples import FREE, draws_of
from experiments.evaluation.image_figures import write_samples
from experiments.evaluation.options import EvaluationOptions
from experiments.tasks.conditions import all_known, concatenated, count_of, take
from experiments.tasks.digits import Digits, properties_of
from experiments.tasks.task import Learned

_SHOWN = "shown"
_CODES = (-1, 1)
"""Of a property's low and high word."""


class Prompts(NamedTuple):
    """n prompts of one kind: the class [n] and the words [n, 4] that each says, as of ``Description``."""

    label: np.ndarray
    words: np.ndarray

    @property
    def conditions(self) -> Known:
        """Their tokens, as conditions [n, ...]."""
        ids, mask = jax.vmap(lambda *said: sentences.tokens(Description(*said), sentences.MOST_TOKENS))(*self)
        return all_known(Tokens(ids, mask))


def _of_words(num_words: int) -> Prompts:
    """Every class with every choice of so many properties and a word for each."""
    words = []
    for chosen in itertools.combinations(range(len(WORDS)), num_words):
        for codes in itertools.product(_CODES, repeat=num_words):
            row = np.zeros(len(WORDS), np.int32)
            row[list(chosen)] = codes
            words.append(row)
    label = np.repeat(np.arange(len(CLASSES), dtype=np.int32), len(words))
    return Prompts(label, np.tile(np.stack(words), (len(CLASSES), 1)))


def _held_out() -> Prompts:
    said = [sentences.parse(prompt) for prompt in sentences.HELD_OUT]
    return Prompts(np.stack([each.label for each in said]), np.stack([each.words for each in said]))


def prompts() -> dict[str, Prompts]:
    """The prompts that are measured: of one word, of two that were learned together, and of two that never were."""
    two = _of_words(2)
    is_kept = np.asarray(jax.vmap(sentences.is_held_out)(Description(*map(jnp.asarray, two))))
    return {
        "one_word": _of_words(1),
        "two_words": Prompts(two.label[~is_kept], two.words[~is_kept]),
        "held_out": _held_out(),
    }


def met(asked: Prompts, samples: np.ndarray, thresholds: Thresholds) -> dict[str, float]:
    """The share of the asked words that samples [n, m, H, W, 1] meet, of all and of each property."""
    num_each = samples.shape[1]
    found = properties_of(samples.reshape(-1, *samples.shape[2:]))
    labels = jnp.asarray(np.repeat(asked.label, num_each))
    describe_all: Any = jax.vmap(lambda label, properties: describe(label, properties, thresholds).words)
    words = describe_all(labels, found)
    wanted = np.repeat(asked.words, num_each, axis=0)
    is_met = np.asarray(words) == wanted
    of_each = {name: float(is_met[wanted[:, i] != 0, i].mean()) for i, name in enumerate(PROPERTIES)}
    return {"words": float(is_met[wanted != 0].mean())} | of_each


class _Reference(NamedTuple):
    """What samples are measured by: the words' thresholds, the feature classifier, and the images learned from."""

    thresholds: Thresholds
    classifier: FeatureClassifier | None
    train_image: np.ndarray
    held_out_distances: np.ndarray

    def measure(self, asked: Prompts, samples: np.ndarray) -> dict[str, float]:
        """The numbers of samples [n, m, H, W, 1] of n prompts."""
        right = {} if self.classifier is None else {"recognised": class_accuracy(self.classifier, asked.label, samples)}
        near = metrics.nearest_distances(samples.reshape(-1, *samples.shape[2:]), self.train_image)
        copies = {"copies": metrics.memorization_rate(near, self.held_out_distances)}
        return right | met(asked, samples, self.thresholds) | copies


def _drawn(
    run: Learned, options: EvaluationOptions, kinds: dict[str, Prompts], counts: dict[str, int]
) -> dict[str, dict[str, np.ndarray]]:
    """Samples [scales, n, m, *D] by kind and solver, m of each prompt as counted; of the task's own conditions one.

    They are drawn together, so that each solver is compiled once.
    """
    own = {_SHOWN: run.task.conditions.rows} | {kind: asked.conditions for kind, asked in kinds.items()}
    num_each = {_SHOWN: 1} | counts
    rows = [take(its, np.repeat(np.arange(count_of(its)), num_each[kind])) for kind, its in own.items()]
    ends = np.cumsum([count_of(each) for each in rows])[:-1]
    found: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in own}
    for solver, samples in draws_of(run, options, concatenated(rows), 1).items():
        for kind, its in zip(own, np.split(samples[:, :, 0], ends, axis=1), strict=True):
            found[kind][solver] = its.reshape(len(its), -1, num_each[kind], *its.shape[2:])
    return found


class Sets(NamedTuple):
    """The digits that a report measures by: all that are not held out, which of them were learned, and the others."""

    train: Digits
    is_learned: np.ndarray
    test: Digits
    thresholds: Thresholds


def evaluate(
    run: Learned, settings: ImageData, known: Sets, options: EvaluationOptions, out_dir: Path
) -> dict[str, Any]:
    """The shares of right classes, of words met and of copies, by kind of prompt, solver and scale.

    Writes samples.png. Copies are nearer to an image learned from than all but 1 % of the held-out images are. Of each
    kind there are about as many samples as a report on labels has of all labels.
    """
    sampling, data_dir, kinds = run.experiment.sampling, run.experiment.data_dir, prompts()
    train, test = known.train.images, known.test.images
    classifier = feature_classifier_of(settings, data_dir, train, test, options.is_kept)
    counts = {kind: -(-len(CLASSES) * sampling.num_per_class // len(its.label)) for kind, its in kinds.items()}
    learned = train.image[known.is_learned]
    reference = _Reference(known.thresholds, classifier, learned, metrics.nearest_distances(test.image, learned))
    drawn = _drawn(run, options, kinds, counts)
    rows = [
        {"prompts": kind, "solver": solver, "scale": scale} | reference.measure(asked, samples)
        for kind, asked in kinds.items()
        for solver, its in drawn[kind].items()
        for scale, samples in zip(sampling.scales, its, strict=True)
    ]
    shown = {(FREE, solver): samples for solver, samples in drawn[_SHOWN].items()}
    write_samples(shown, {FREE: sampling.scales}, run.task.conditions.texts, out_dir)
    own = None if classifier is None else classifier.test_accuracy
    return {
        **({} if own is None else {"recogniser_test_accuracy": own}),
        "num_samples": {kind: counts[kind] * len(asked.label) for kind, asked in kinds.items()},
        "words_met": rows,
        "samples": [],
    }
