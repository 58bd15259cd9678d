"""Pictures of a folder, each told by its metadata: a class, numbers, a text, or stored embeddings of it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import data
from cfgjax.conditions import Known, Tokens, as_condition
from cfgjax.data import ConditionedImages
from cfgjax.types import Array, Tree
from experiments.cli.main import UserError
from experiments.config.kinds import LEARNED, ConditionedData, Said
from experiments.config.schema import Experiment
from experiments.config.values import LONGEST_SHOWN, MOST_SHOWN, MOST_TOKENS
from experiments.evaluation import conditioned as report
from experiments.runtime import distributed
from experiments.tasks import columns, digests, in_memory, properties, texts
from experiments.tasks.conditions import take
from experiments.tasks.examples import require_as_configured, warn_of_absent
from experiments.tasks.images import arrays, samples_of
from experiments.tasks.label_names import names_to_tell
from experiments.tasks.objectives import OBJECTIVES
from experiments.tasks.task import Reads, Task, TaskFacts
from experiments.tasks.texts import Tokenizer

_EMBEDDINGS, _MASK = "embeddings", "mask"


class _Splits(NamedTuple):
    """The pictures to learn from and those held out."""

    train: ConditionedImages
    test: ConditionedImages


def _only(images: ConditionedImages, wanted: tuple[str, ...]) -> ConditionedImages:
    """The images with some columns alone."""
    return images._replace(columns={name: images.columns[name] for name in wanted})


@lru_cache(maxsize=2)
def _read(folder: Path, data_dir: Path, wanted: tuple[str, ...], label: str | None, embeddings: Path | None) -> _Splits:
    """The pictures of a folder with some columns, read once in a process.

    Raises:
        DataError: no such folder, or what does not read there.
        UserError: no pictures to learn from, or none held out.
    """
    if not data.require_inside(folder, data_dir).is_dir():
        raise UserError(
            f"data.folder {folder} does not exist; run: python -m experiments.prepare {folder.name} "
            f"--source FOLDER_OF_PICTURES_WITH_METADATA --data-dir {data_dir}"
        )
    images, _ = data.read_metadata_folder(folder, columns=wanted or None, label=label)
    images = {split: _only(its, wanted) for split, its in images.items()}
    if embeddings is not None:
        images = data.join_embeddings(images, data.read_embeddings(folder / embeddings, data_dir))
    if len(images) == 1:
        images = data.hold_out(*images.values())
    test = images.get("test", images.get("validation"))
    if "train" not in images or test is None:
        raise UserError(f"data.folder {folder} must hold the splits train and test, got {', '.join(images)}")
    return _Splits(images["train"], test)


def _splits_of(experiment: Experiment, settings: ConditionedData) -> _Splits:
    """The pictures that settings ask for, once each column is found to be of its kind."""
    columns.names_of(settings)
    wanted = tuple(name for name in (*settings.numbers, settings.label, settings.text) if name is not None)
    folder = experiment.data_dir / settings.folder
    found = _read(folder, experiment.data_dir, wanted, settings.label, settings.embeddings)
    for name in settings.numbers:
        if not isinstance(found.train.columns[name], np.ndarray):
            raise UserError(f"data.numbers must be columns of numbers, and {name!r} in {folder} holds text")
    if settings.text is not None and isinstance(found.train.columns[settings.text], np.ndarray):
        raise UserError(f"data.text must be a column of text, and {settings.text!r} in {folder} holds numbers")
    return found


def _matrix(images: ConditionedImages, settings: ConditionedData) -> np.ndarray:
    """The numbers, [n, k] float64."""
    rows = [np.asarray(images.columns[name], np.float64) for name in settings.numbers]
    return np.stack(rows, axis=1) if rows else np.zeros((len(images.pixels), 0))


def _with_classes(settings: ConditionedData, splits: _Splits) -> ConditionedData:
    if settings.label is None:
        return replace(settings, num_classes=1, label_names=None, absent_labels=())
    train, test = (np.asarray(each.columns[settings.label]) for each in splits)
    names = splits.train.class_names.get(settings.label)
    count = 1 + int(max(train.max(), test.max())) if names is None else len(names)
    require_as_configured("num_classes", settings.num_classes, count)
    told = names_to_tell(names)
    if told is not None:
        require_as_configured("label_names", settings.label_names, told)
    absent = warn_of_absent(np.unique(train), count)
    return replace(settings, num_classes=count, label_names=told, absent_labels=absent)


def _with_spread(settings: ConditionedData, splits: _Splits) -> ConditionedData:
    if settings.mean is not None and settings.deviation is not None:
        return settings
    values = _matrix(splits.train, settings)
    mean, deviation = values.mean(axis=0), values.std(axis=0)
    for name, its in zip(settings.numbers, deviation.astype(np.float32), strict=True):
        if its == 0:
            raise UserError(f"data.numbers: {name!r} is the same for all training pictures, and tells nothing")
    return replace(settings, mean=tuple(mean.tolist()), deviation=tuple(deviation.tolist()))


def _texts_of(images: ConditionedImages, settings: ConditionedData) -> list[str]:
    return [] if settings.text is None else [str(text) for text in images.columns[settings.text]]


def _warn_of_cut(read: list[np.ndarray], length: int) -> None:
    longer = sum(len(each) > length for each in read)
    if longer:
        distributed.warn(f"warning: {longer} training texts have more than {length} tokens, and are cut there")


def _with_tokens(settings: ConditionedData, splits: _Splits, tokenizer: Tokenizer | None) -> ConditionedData:
    """The settings with the vocabulary and the form of the tokens, as far as they lack these."""
    if settings.embeddings is not None:
        stored = np.asarray(splits.train.columns[_EMBEDDINGS])
        length = settings.length or (stored.shape[1] if stored.ndim == 3 else 1)
        require_as_configured("token_width", settings.token_width, stored.shape[-1])
        return replace(settings, length=length, token_width=stored.shape[-1])
    if settings.text is None or (settings.length is not None and _has_form(settings)):
        return settings
    own = _texts_of(splits.train, settings)
    if settings.tokenizer is None:
        vocabulary, left_out = texts.vocabulary_of(own)
        if not vocabulary:
            raise UserError(f"data.text: no training text in column {settings.text!r} has a word")
        if left_out:
            distributed.warn(f"warning: {left_out} words of the training texts are left out, too long or too rare")
        settings = replace(settings, vocabulary=vocabulary)
    read = _tokens(settings, tokenizer, own)
    length = settings.length or min(max(map(len, read)), MOST_TOKENS)
    _warn_of_cut(read, length)
    if settings.vocabulary is not None:
        return replace(settings, length=length)
    form = texts.form_of([*read, *_tokens(settings, tokenizer, _texts_of(splits.test, settings))], length)
    return replace(settings, length=length, num_tokens=form.num_tokens, token_width=form.width)


def _has_form(settings: ConditionedData) -> bool:
    return any(each is not None for each in (settings.vocabulary, settings.num_tokens, settings.token_width))


def _tokens(settings: ConditionedData, tokenizer: Tokenizer | None, own: list[str]) -> list[np.ndarray]:
    """The tokens of each text.

    Raises:
        UserError: they are read by a function, which is not given.
    """
    read = columns.reader_of(settings, tokenizer, is_strict=False)
    if read is None:
        raise UserError(f"data.text is read by {settings.tokenizer}, which only the command line may name")
    return [read("text", text) for text in own]


def _with_examples(settings: ConditionedData, splits: _Splits) -> ConditionedData:
    if settings.examples is not None:
        return settings
    test = splits.test.take(range(min(MOST_SHOWN, len(splits.test.pixels))))
    labels = [None] * MOST_SHOWN if settings.label is None else np.asarray(test.columns[settings.label]).tolist()
    own = _texts_of(test, settings) or [None] * MOST_SHOWN
    rows = zip(labels, _matrix(test, settings).tolist(), own, strict=False)
    said = (Said(label, tuple(numbers), text and text[:LONGEST_SHOWN]) for label, numbers, text in rows)
    return replace(settings, examples=tuple(said))


def _stored(images: ConditionedImages, settings: ConditionedData) -> Tree | None:
    """The stored embeddings as conditions; None where there are none."""
    if settings.embeddings is None:
        return None
    values: Any = np.asarray(images.columns[_EMBEDDINGS])
    values = values[:, np.newaxis] if values.ndim == 2 else values[:, : settings.length]
    mask: Any = np.asarray(images.columns.get(_MASK, np.ones(values.shape[:2], bool)))[:, : values.shape[1]]
    return Known(Tokens(values, mask), mask.any(axis=1))


def _said(settings: ConditionedData, images: ConditionedImages, tokenizer: Tokenizer | None) -> dict[str, Tree]:
    """What is said of each picture, y of all."""
    found: dict[str, Tree] = {}
    if settings.label is not None:
        found["label"] = np.asarray(images.columns[settings.label])
    if settings.numbers:
        found["numbers"] = properties.standardised(_matrix(images, settings), columns.spread_of(settings))
    if settings.embeddings is not None:
        found["text"] = _stored(images, settings)
    if settings.text is not None:
        form = columns.form_of(settings)
        read = _tokens(settings, tokenizer, _texts_of(images, settings))
        found["text"] = form.stacked([form.require("text", each) for each in read])
    return found


def _arrays(samples: np.ndarray, said: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """x, what was asked by its own names, and of images their pixels as arr_0."""
    return {name: its for name, its in arrays(samples, np.zeros(0)).items() if name != "y"} | said


def _facts(
    experiment: Experiment, settings: ConditionedData, tokenizer: Tokenizer | None, stored: Tree | None = None
) -> TaskFacts:
    """What sampling needs to know, of settings that tell it."""
    shape = settings.shape or ()
    return TaskFacts(
        shape=shape,
        num_classes=settings.num_classes or 1,
        objective=OBJECTIVES[experiment.objective],
        samples=samples_of(shape)._replace(arrays=_arrays),
        class_names=settings.label_names,
        absent_labels=settings.absent_labels or (),
        told=columns.conditions_of(settings, tokenizer, stored),
    )


def facts_of(experiment: Experiment, settings: ConditionedData, tokenizer: Tokenizer | None = None) -> TaskFacts:
    """What sampling needs to know of a folder, which is read where the config does not tell it.

    Raises:
        DataError: the folder is needed, and does not read.
        UserError: it is not as the experiment says.
    """
    if not columns.is_told(settings):
        return _from_data(experiment, settings, tokenizer)
    return _facts(experiment, settings, tokenizer)


def _example(key: Array, drawn: tuple[Array, Tree]) -> tuple[Array, Tree]:
    pixels, said = drawn
    return data.normalize(pixels), said


def _from_data(experiment: Experiment, settings: ConditionedData, tokenizer: Tokenizer | None) -> Task:
    """The task of what the folder is found to hold; each text is read once."""
    splits = _splits_of(experiment, settings)
    tokenizer = None if tokenizer is None else tokenizer._replace(function=cache(tokenizer.function))
    shape = splits.train.pixels.shape[1:]
    require_as_configured("shape", settings.shape, shape)
    found = _with_classes(replace(settings, shape=shape), splits)
    found = _with_tokens(_with_spread(found, splits), splits, tokenizer)
    found = _with_examples(found, splits)
    train, test = ((each.pixels, _said(found, each, tokenizer)) for each in splits)
    shown, stored = np.arange(len(found.examples or ())), None
    if settings.embeddings is not None and len(shown) <= len(test[0]):
        stored = take(test[1]["text"], shown)
    return in_memory.from_data(
        experiment,
        _facts(experiment, found, tokenizer, stored),
        _example,
        train,
        test,
        lambda run, options, out_dir: report.evaluate(run, found, splits.train, splits.test, options, out_dir),
        {f"{name}_digest": digests.of_conditioned(its) for name, its in splits._asdict().items()},
        {name: getattr(found, name) for name in LEARNED if hasattr(found, name)},
    )


def task_of(
    experiment: Experiment, settings: ConditionedData, reads: Reads, tokenizer: Tokenizer | None = None
) -> Task:
    """The task of a folder of pictures with metadata; one that the config does not tell is read in any case.

    Raises:
        DataError: the folder does not read.
        UserError: it is not as the experiment says.
    """
    if reads != "shapes" or not columns.is_told(settings):
        return _from_data(experiment, settings, tokenizer)
    facts = _facts(experiment, settings, tokenizer)
    of_one = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.asarray(leaf).dtype), as_condition(facts.conditions.null)
    )
    return in_memory.from_settings(experiment, facts, _example, of_one)
