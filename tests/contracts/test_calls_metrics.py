"""Calls of metrics, pixels and batches: the right answer or one clear error."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import data, metrics
from cfgjax.analysis import residuals
from cfgjax.models import inception_inputs
from tests.support.calls import (
    COUNT,
    FIELD,
    FUNCTIONS,
    INF,
    KEYS,
    LABEL,
    MIXTURE,
    NAN,
    NULL_OR_LABEL,
    NUM_CLASSES,
    PATH,
    PATHS,
    SHARE,
    STATE,
    TIME,
    WORDS,
    Case,
    Choices,
    fuzz,
    plain,
)

RNG = np.random.default_rng(0)
NO_SET = (
    1.0,
    None,
    "set",
    np.ones((0, 2)),
    np.ones(0),
    np.full((9, 2), NAN),
    np.full((9, 2), INF),
    np.ones((9, 2), complex),
)
SETS = Choices(
    (RNG.normal(size=(9, 2)), RNG.normal(size=(7, 2)).astype(np.float32), jnp.ones((8, 2)), np.ones((9, 2), int)),
    NO_SET,
)
FEATURES = SETS.but(refused=(np.ones(9), np.ones((9, 2, 1)), np.ones((1, 2)), np.ones((9, 3))))
POINTS = SETS.but(allowed=(np.ones((1, 2)),), refused=(np.ones((9, 3)), np.ones((9, 2, 1))))
MANY = SETS.but(refused=(np.ones((1, 2)), np.ones((9, 3))))
MEANS = Choices(
    (np.zeros(2), [1.0, -2.0], jnp.ones(2)),
    (1.0, None, "mean", np.zeros(3), np.zeros((2, 1)), [NAN, 0.0], [INF, 0.0], [1j, 0.0]),
)
COVARIANCES = Choices(
    (np.eye(2), jnp.ones((2, 2)), [[0.0, 0.0], [0.0, 2.0]]),
    (1.0, None, "law", np.eye(3), np.ones((2, 1)), np.array([[1.0, 1.0], [0.0, 1.0]]), -np.eye(2), np.eye(2) * NAN),
)
PICTURES = Choices(
    (np.arange(24, dtype=np.uint8).reshape(2, 4, 3), jnp.full((3, 2, 3), 255.0), np.ones((1, 1, 3))),
    (1.0, None, "picture", np.ones((2, 3)), np.ones((2, 2, 1)), np.ones((0, 2, 3)), np.ones((2, 2, 3), complex)),
)
ROW = Choices(
    (np.array([0.5, 1.0]), [1.0, 2.0, 3.0], jnp.ones(4)),
    (1.0, [], [NAN], [INF, 1.0], np.ones((2, 2)), "row", None, [1j]),
)
LOG_PROBS = Choices(
    (np.log([[0.8, 0.2], [0.1, 0.9]]), np.array([[0, -INF], [-1, -1]]), jnp.log(jnp.full((2, 2), 0.5))),
    (np.zeros((0, 2)), np.zeros(2), np.full((2, 2), NAN), np.ones((2, 2)), np.zeros((2, 2), complex), "p", None, 0.0),
)
LABELS = Choices(
    (np.array([0, 1]), [1, 0], jnp.array([1, 1])),
    (np.array([0, 2]), np.array([-1, 0]), [0.0, 1.0], [0], np.zeros((2, 1), int), "ab", None, []),
)
BETWEEN = {"samples": FEATURES, "reference": FEATURES._replace(refused=(*FEATURES.refused[:-1], np.ones((9, 4))))}
EITHER = {"samples": "samples|reference|others", "reference": "samples|reference|others", "others": "samples|others"}
LOG_CLASSIFIER = MIXTURE.label_log_probs(PATH)
FIELDS = Choices((MIXTURE.vector_field(PATH),), FIELD.refused)
CLASSIFIERS = Choices(
    (LOG_CLASSIFIER,), (*FUNCTIONS, lambda x, t: jnp.sum(x), lambda x, t: jnp.ones(2), lambda x, t: "p")
)
PIXELS = Choices(
    (np.arange(4, dtype=np.uint8), np.array([0, 255]), jnp.array([1.5, 200.0]), 128, np.zeros((2, 0), np.uint8)),
    (np.array([-1, 3]), np.array([256]), np.array([NAN]), 300.0, "pixels", None, np.ones(2, complex), np.array(["a"])),
)
IMAGES = Choices(
    (np.arange(12.0).reshape(2, 3, 2), jnp.ones((1, 1, 1)), np.zeros((2, 2, 3), np.uint8)),
    (np.ones((2, 2)), np.ones((4, 2, 2, 1)), "image", None, 1.0, np.ones((2, 2, 1), complex)),
)


def _flipped(key, image):
    found = np.asarray(data.random_flip(key, image))
    assert np.array_equal(found, image) or np.array_equal(found, np.asarray(image)[:, ::-1])
    return found


def _indices(seed, step, batch_size, num_examples):
    found = data.batch_indices(seed, step, batch_size, num_examples)
    assert len(set(found.tolist())) == batch_size and min(found) >= 0 and max(found) < num_examples
    return found


def _neighbourhood(samples, reference, neighbours):
    """Without its warning of samples that are all alike."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "samples repeats")
        return metrics.precision_recall(samples, reference, neighbours)


CASES = [
    Case(
        "metrics.nearest_distances",
        metrics.nearest_distances,
        {"samples": POINTS, "reference": POINTS._replace(refused=(*NO_SET, np.ones((9, 4))))},
        lambda samples, reference: np.sqrt(
            ((plain(samples)[:, None] - plain(reference)[None]) ** 2).sum(-1).min(axis=1)
        ),
        EITHER,
        1e-6,
    ),
    Case(
        "metrics.energy_distance",
        metrics.energy_distance,
        {"samples": MANY, "others": MANY._replace(refused=(*NO_SET, np.ones((9, 4))))},
        None,
        EITHER,
    ),
    Case(
        "metrics.memorization_rate",
        metrics.memorization_rate,
        {"nearest": ROW, "held_out_nearest": ROW.but(refused=([0.0, 0.0],)), "quantile": SHARE},
        lambda nearest, held_out_nearest, quantile: np.mean(
            plain(nearest) < np.quantile(plain(held_out_nearest), float(quantile))
        ),
    ),
    Case("metrics.frechet_distance", metrics.frechet_distance, BETWEEN, None, EITHER),
    Case(
        "metrics.frechet_distance of one set",
        lambda samples: metrics.frechet_distance(samples, samples),
        {"samples": FEATURES._replace(refused=NO_SET)},
        lambda samples: 0.0,
    ),
    Case(
        "metrics.feature_statistics",
        lambda features: metrics.feature_statistics(features).covariance,
        {"features": FEATURES._replace(refused=(*NO_SET, np.ones((1, 2)), np.ones(9)))},
        lambda features: np.cov(plain(features), rowvar=False),
        {},
        1e-6,
    ),
    Case(
        "metrics.frechet_distance_to",
        metrics.frechet_distance_to,
        {"samples": FEATURES, "mean": MEANS, "covariance": COVARIANCES},
        None,
        dict.fromkeys(("samples", "mean", "covariance"), "samples|mean|covariance"),
    ),
    Case("metrics.kernel_mmd", metrics.kernel_mmd, BETWEEN, None, EITHER),
    Case(
        "metrics.precision_recall",
        _neighbourhood,
        BETWEEN
        | {"reference": BETWEEN["reference"]._replace(allowed=SETS.allowed[:2]).but(refused=(np.ones((8, 2)),))}
        | {"neighbours": COUNT._replace(allowed=(1, 3, np.int64(2)), more=None).but(refused=(9, 100))},
        None,
        EITHER | {"neighbours": "neighbours|samples|reference"},
    ),
    Case(
        "metrics.num_repeated",
        metrics.num_repeated,
        {"points": SETS, "neighbours": COUNT._replace(allowed=(1, 3, np.int64(2)), more=None).but(refused=(9, 100))},
        lambda points, neighbours: len(points) if np.all(plain(points) == 1) else 0,
        {"points": "points|neighbours", "neighbours": "neighbours|points"},
    ),
    Case(
        "metrics.calibration_error",
        metrics.calibration_error,
        {"log_probs": LOG_PROBS, "labels": LABELS, "num_bins": COUNT},
    ),
    Case(
        "residuals.relative_error",
        lambda learned, exact: residuals.relative_error(learned, exact),
        {
            "learned": Choices(
                (jnp.full((3, 2), 2.0), np.full((3, 2), 2)), (np.ones((3, 2), complex), "learned", None)
            ),
            "exact": Choices(
                (jnp.ones((3, 2)), np.ones((3, 2), int)),
                (jnp.ones((3, 1)), jnp.ones(2), jnp.ones((0, 2)), np.zeros((3, 2)), "e"),
            ),
        },
        lambda learned, exact: 1.0,
        {"learned": "learned|exact", "exact": "learned|exact"},
    ),
    Case(
        "residuals.guidance_terms",
        lambda field, log_classifier, path, null, x, t, y: residuals.guidance_terms(
            path, field, log_classifier, x, t, y, null
        ),
        {
            "field": FIELDS,
            "log_classifier": CLASSIFIERS._replace(refused=CLASSIFIERS.refused[:-2]),
            "path": PATHS,
            "null": Choices((NUM_CLASSES,), LABEL.refused),
            "x": STATE,
            "t": TIME,
            "y": NULL_OR_LABEL,
        },
    ),
    Case(
        "residuals.posterior_mean_field",
        lambda field, log_classifier, x, t: residuals.posterior_mean_field(field, log_classifier, NUM_CLASSES)(x, t),
        {"field": FIELDS, "log_classifier": CLASSIFIERS, "x": STATE, "t": TIME},
        lambda field, log_classifier, x, t: field(plain(x).astype(np.float32), t, NUM_CLASSES),
        {},
        1e-3,
    ),
    Case("inception_inputs.tensorflow_input", inception_inputs.tensorflow_input, {"pixels": PICTURES}),
    Case("inception_inputs.pytorch_fid_input", inception_inputs.pytorch_fid_input, {"pixels": PICTURES}),
    Case("data.normalize", data.normalize, {"pixels": PIXELS}, lambda pixels: plain(pixels) / 127.5 - 1, {}, 1e-6),
    Case(
        "data.to_pixels of data.normalize",
        lambda pixels: data.to_pixels(data.normalize(pixels)),
        {"pixels": PIXELS._replace(allowed=PIXELS.allowed[:2])},
        lambda pixels: pixels,
    ),
    Case(
        "data.to_pixels",
        data.to_pixels,
        {"image": Choices(([0.0, 2.0], np.zeros((2, 2)), jnp.ones(3)), ([NAN], np.full(2, INF), "image", None, [1j]))},
        lambda image: np.clip(np.round((plain(image) + 1) * 127.5), 0, 255),
    ),
    Case(
        "data.dequantise",
        lambda key, pixels: jnp.floor((data.dequantise(key, pixels) + 1) * 128),
        {"key": KEYS, "pixels": PIXELS._replace(allowed=(PIXELS.allowed[0],))},
        lambda key, pixels: pixels,
    ),
    Case("data.random_flip", _flipped, {"key": KEYS, "image": IMAGES}),
    Case(
        "data.batch_indices",
        _indices,
        {
            "seed": COUNT._replace(allowed=(0, 3), refused=(-1, 1.5, NAN, True, *WORDS)),
            "step": COUNT._replace(allowed=(0, 7, np.int64(2)), refused=(-1, 1.5, NAN, jnp.ones(1, int), *WORDS)),
            "batch_size": COUNT._replace(allowed=(1, 3), more=None).but(refused=(100,)),
            "num_examples": COUNT._replace(allowed=(10, np.int32(5)), more=None).but(refused=(-3,)),
        },
        named={"num_examples": "num_examples|batch_size"},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer_is_right_or_the_error_clear(case):
    fuzz(case)


def test_sets_of_unlike_examples_are_not_spread():
    """Examples [d] and [1] would have been compared coordinate by coordinate with one number."""
    with pytest.raises(ValueError, match="samples and reference must hold examples of one shape"):
        metrics.nearest_distances(np.ones((4, 3)), np.ones((4, 1)))
    with pytest.raises(ValueError, match="samples and others must hold examples of one shape"):
        metrics.energy_distance(np.ones((4, 3)), np.ones((4, 1)))
