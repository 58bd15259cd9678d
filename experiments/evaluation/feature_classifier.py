"""The feature classifier, of clean images: trained on the real training set once and kept beside the data."""

import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cfgjax import checkpoints, data, training
from cfgjax.models import ConvNet
from cfgjax.types import Array, Loss, TrainState, Tree
from experiments.cli import main as cli
from experiments.evaluation.measurable import RECOGNITION
from experiments.runtime import distributed, progress
from experiments.runtime.matmul_precision import at_precision

BATCH_SIZE, NUM_EPOCHS, MOST_STEPS = 128, 30, 4_000
LEARNING_RATE, EMA_DECAY = 2e-3, 0.99
_NOT_KEPT = "for this time alone: name the folder of prepared data sets by --data-dir to keep it there"

Features = Callable[[np.ndarray], np.ndarray]
"""images [n, H, W, C] in [-1, 1] -> features [n, d]."""


class FeatureClassifier(NamedTuple):
    """Features [n, d] and log-probabilities [n, K] of images [n, H, W, C] in [-1, 1], and its own test accuracy.

    The accuracy is None where no image is held out.
    """

    features: Features
    log_probs: Callable[[np.ndarray], np.ndarray]
    test_accuracy: float | None


def class_accuracy(classifier: FeatureClassifier, labels: np.ndarray, samples: np.ndarray) -> float:
    """The share of samples [n, m, H, W, C] that are taken for the label that was asked of them, [n]."""
    likeliest = np.argmax(classifier.log_probs(samples.reshape(-1, *samples.shape[2:])), axis=1)
    return float(np.mean(likeliest == np.repeat(labels, samples.shape[1])))


def _apply_of(network: ConvNet) -> Callable[..., Any]:
    """The network's function, in float32 on every device: what it measures depends on none."""
    return at_precision(network.apply, "highest")


def _loss(network: ConvNet) -> Loss:
    apply = _apply_of(network)

    def loss(params: Tree, key: Array, example: Tree) -> Array:
        pixels, y = example
        _, log_probs = apply(params, data.normalize(pixels), False, rngs={"dropout": key})
        return -log_probs[y]

    return loss


def _optimizer(num_steps: int) -> optax.GradientTransformation:
    return optax.adamw(optax.warmup_cosine_decay_schedule(0.0, LEARNING_RATE, num_steps // 10, num_steps))


def _num_steps(train: data.Images) -> int:
    return max(10, min(MOST_STEPS, NUM_EPOCHS * len(train.label) // BATCH_SIZE))


def _fit(state: TrainState, network: ConvNet, train: data.Images) -> TrainState:
    num_steps = _num_steps(train)
    step = training.make_step(_loss(network), _optimizer(num_steps), training.ema_warmup(EMA_DECAY))
    step = jax.jit(step, donate_argnums=0)
    source = jnp.asarray(train.pixels), jnp.asarray(train.label)
    batch_size = min(BATCH_SIZE, len(train.label))
    for index in progress.each(range(num_steps), "steps", "training the feature classifier"):
        state, _ = step(state, data.batch_indices(0, index, batch_size, len(train.label)), source)
    return state


def folder_of(settings: Any, data_dir: Path, train: data.Images) -> Path:
    """The folder of the feature classifier of these training images; other images of the same name have another.

    Raises:
        DataError: a link leads it out of data_dir.
    """
    digest = zlib.crc32(np.ascontiguousarray(train.pixels).data, zlib.crc32(train.label.tobytes()))
    name = f"{settings.name}-{settings.train_split}-{digest:08x}"
    return data.require_inside(data_dir / "recognisers" / re.sub(r"[^\w.%-]+", "_", name), data_dir)


def _restored(folder: Path, like: TrainState) -> TrainState:
    """The saved feature classifier, once it is found to be one."""
    try:
        state = checkpoints.restore(folder, like).state
        if not all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(state.ema)):
            raise checkpoints.CheckpointError(f"checkpoint {folder} holds numbers that are not finite")
    except checkpoints.CheckpointError as error:
        raise checkpoints.CheckpointError(f"{error}; remove {folder} to train the feature classifier again") from None
    return state


def _trained(network: ConvNet, settings: Any, data_dir: Path, train: data.Images, is_kept: bool) -> TrainState:
    """The state of the feature classifier, read back if it is there, trained now if not."""
    folder = folder_of(settings, data_dir, train)
    params = jax.jit(network.init)(jax.random.key(0), jnp.zeros(train.pixels.shape[1:]))
    state = training.init_state(params, _optimizer(_num_steps(train)), jax.random.key(1))
    is_there = checkpoints.latest_step(folder) is not None
    if distributed.all_true(is_there):
        return _restored(folder, state)
    is_kept = is_kept and not distributed.any_true(is_there)
    cli.info(
        f"training the feature classifier of {settings.name} once, " + (f"into {folder}" if is_kept else _NOT_KEPT)
    )
    state = _fit(state, network, train)
    if is_kept:
        with checkpoints.Writer(folder) as writer:
            writer.save(int(state.step), state, {"data": settings.name, "split": settings.train_split})
    return state


def feature_classifier_of(
    settings: Any, data_dir: Path, train: data.Images, test: data.Images, is_kept: bool = True
) -> FeatureClassifier | None:
    """The feature classifier of a data set, trained now or read back; None where all labels are alike.

    Args:
        settings: the data set's name and training split.
        data_dir: the folder of prepared data sets.
        train: its training images.
        test: the held-out ones, for its accuracy.
        is_kept: whether one that is trained now is written beside the data.

    Raises:
        CheckpointError: what lies there is not a feature classifier of these images.
        DataError: its folder is a link that leads out of data_dir.
    """
    if len(np.unique(train.label)) < RECOGNITION.least.labels:
        return None
    network = ConvNet(train.num_classes)
    ema, apply_to = _trained(network, settings, data_dir, train, is_kept).ema, _apply_of(network)

    @jax.jit
    def apply(images: Array) -> tuple[Array, Array]:
        return jax.lax.map(lambda image: apply_to(ema, image), images, batch_size=256)

    log_probs = lambda images: np.asarray(apply(jnp.asarray(images))[1])  # noqa: E731
    is_right = np.argmax(log_probs(test.image), axis=1) == test.label if len(test.label) else None
    accuracy = None if is_right is None else float(np.mean(is_right))
    return FeatureClassifier(lambda images: np.asarray(apply(jnp.asarray(images))[0]), log_probs, accuracy)
