"""Calls of losses, likelihood, sweeps, diagnostics and training: the right answer or one clear error."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import losses, solvers, training
from cfgjax.analysis import guidance_diagnostics, likelihood
from cfgjax.analysis.sweep import sweep
from tests.support.calls import (
    ANY_STATE,
    COUNT,
    DATA_LABEL,
    DOWN_GRID,
    FIELD,
    FUNCTIONS,
    GRID,
    INF,
    KEY,
    KEYS,
    LABEL,
    MIXTURE,
    NAN,
    PATH,
    PATHS,
    POSITIVE,
    SHARE,
    WORDS,
    Case,
    Choices,
    fuzz,
    numbers,
    plain,
)

NOT_EMPTY = ANY_STATE._replace(
    allowed=ANY_STATE.allowed[:8], refused=(*ANY_STATE.refused, jnp.ones(0), np.ones((2, 0)))
)
DENSITY = Choices(
    (losses.uniform(), losses.logit_normal(), lambda key: 0.5),
    (*FUNCTIONS, lambda key: 1.5, lambda key: jnp.ones(2), lambda key: "t", lambda key: NAN),
)
WEIGHT = Choices((losses.flat, lambda t: 0.5), (*FUNCTIONS, lambda t: jnp.ones(2), lambda t: "weight"))
OTHERS = {"path": PATHS, "key": KEYS, "z": NOT_EMPTY, "time_density": DENSITY, "weight": WEIGHT}
CLASSIFIER = Choices(
    (MIXTURE.label_log_probs(PATH), lambda x, t: np.full(3, -1.0)),
    (*FUNCTIONS, lambda x, t: jnp.sum(x), lambda x, t: jnp.ones((3, 1)), lambda x, t: "p", lambda x, t: jnp.ones(0)),
)
SIDES = Choices(
    (lambda x, t: (x, -x), lambda x, t: [t * x, x]),
    (*FUNCTIONS, lambda x, t: x, lambda x, t: (x, x, x), lambda x, t: (x, jnp.ones(7)), lambda x, t: ("x", x)),
)
START = numbers(0.25, 0, 0.5, refused=(-0.1, 1.5, INF, 1))
STOP = numbers(0.75, 1, refused=(-0.1, 1.5, INF, 0))
UP, DOWN = GRID._replace(allowed=GRID.allowed[:3]), DOWN_GRID
MAKER = Choices((solvers.euler, solvers.heun), (*FUNCTIONS, lambda field: field, lambda field: None))
NOT_DIVERGENCES = (
    *FUNCTIONS,
    lambda x, t: x,
    lambda x, t: (x, x),
    lambda x, t: (jnp.ones(3), 0.0),
    lambda x, t: "both",
)
DIVERGENCE = Choices((likelihood.exact_divergence(lambda x, t: jnp.zeros_like(x)),), NOT_DIVERGENCES)
SOME = Choices((jnp.ones(2), np.ones(2), np.ones(2, int)), (np.ones(2, complex), "x", None, KEY))
AXIS = Choices(
    (jnp.arange(2), np.ones((3, 2)), [jnp.ones(2), np.zeros(2)]),
    (1.0, jnp.ones(0), "ab", None, [jnp.ones(2), jnp.ones(3)]),
)


def _log_normal(x):
    return -0.5 * (np.sum(plain(x) ** 2) + plain(x).size * np.log(2 * np.pi))


def _by_label(labels, num_classes):
    seen = guidance_diagnostics.Diagnostics(*(jnp.ones((3, 2)) for _ in range(5)))
    return jax.tree.map(lambda values: jnp.nanmean(values), guidance_diagnostics.by_label(seen, labels, num_classes))


def _batch(num_examples):
    return {"x": np.arange(2 * num_examples).reshape(-1, 2), "y": jnp.arange(num_examples)}


CASES = [
    *(
        Case(
            f"losses.{loss.__name__}",
            lambda given, path, key, z, time_density, weight, loss=loss: loss(
                path, given, key, z, time_density=time_density, weight=weight
            ),
            OTHERS | {"given": FIELD},
            named={"given": name, "time_density": r"time_density\(key\)|time_density", "weight": r"weight\(t\)|weight"},
        )
        for loss, name in (
            (losses.flow_matching, "field"),
            (losses.noise_matching, "noise"),
            (losses.score_matching, "score"),
            (losses.denoiser_matching, "denoiser"),
        )
    ),
    Case(
        "losses.internal_matching",
        lambda given, path, key, z, time_density, weight, share: losses.internal_matching(
            path, given, key, z, time_density=time_density, weight=weight, share=share
        ),
        OTHERS | {"given": SIDES, "share": numbers(0.5, 0, 2, refused=(-1, INF))},
        named={"given": "sides", "time_density": r"time_density\(key\)|time_density", "weight": r"weight\(t\)|weight"},
    ),
    Case(
        "losses.flow_matching: the target itself has no loss",
        lambda path, key, z: losses.noise_matching(
            path,
            lambda x, t: (x - path.alpha(t) * jnp.asarray(z)) / path.beta(t),
            key,
            z,
            time_density=lambda key: 0.25,
        ),
        {"path": PATHS, "key": KEYS, "z": NOT_EMPTY._replace(refused=())},
        lambda path, key, z: 0.0,
    ),
    Case(
        "losses.flow_matching with a label",
        lambda y: losses.flow_matching(PATH, lambda x, t, y: y * x, KEY, jnp.ones(2), y),
        {"y": LABEL},
    ),
    Case(
        "losses.classifier_cross_entropy",
        losses.classifier_cross_entropy,
        {"log_classifier": CLASSIFIER, "path": PATHS, "key": KEYS, "z": SOME, "y": DATA_LABEL, "time_density": DENSITY},
    ),
    Case(
        "losses.uniform",
        lambda start, stop, key: losses.uniform(start, stop)(key),
        {"start": START, "stop": STOP, "key": KEYS},
    ),
    Case(
        "losses.logit_normal",
        lambda location, spread, key: losses.logit_normal(location, spread)(key),
        {"location": numbers(0.5, 0, refused=(INF,)), "spread": numbers(0.5, 0, refused=(-1, INF)), "key": KEYS},
    ),
    Case(
        "likelihood.exact_divergence",
        lambda field, x: likelihood.exact_divergence(field)(x, 0.5)[0],
        {"field": FIELD, "x": ANY_STATE},
    ),
    Case(
        "likelihood.exact_divergence of x / 2",
        lambda x: likelihood.exact_divergence(lambda x, t: x / 2)(x, 0.5)[1],
        {"x": ANY_STATE},
        lambda x: np.size(x) / 2,
    ),
    Case(
        "likelihood.estimated_divergence of x / 2",
        lambda x, key: likelihood.estimated_divergence(lambda x, t: x / 2, key)(x, 0.5)[1],
        {"x": ANY_STATE, "key": KEYS},
        lambda x, key: np.size(x) / 2,
    ),
    Case(
        "likelihood.estimated_divergence",
        lambda field, key: likelihood.estimated_divergence(field, key)(jnp.ones(2), 0.5),
        {"field": FIELD, "key": KEYS},
    ),
    Case(
        "likelihood.log_density without motion",
        lambda make_solver, divergence, x, ts: likelihood.log_density(make_solver, divergence, x, ts)[0],
        {"make_solver": MAKER, "divergence": DIVERGENCE, "x": SOME, "ts": DOWN},
        lambda make_solver, divergence, x, ts: _log_normal(x),
        named={"make_solver": "make_solver|solver"},
    ),
    Case(
        "likelihood.sample_log_density without motion",
        lambda make_solver, divergence, noise, ts: likelihood.sample_log_density(make_solver, divergence, noise, ts)[0],
        {"make_solver": MAKER, "divergence": DIVERGENCE, "noise": SOME, "ts": UP},
        lambda make_solver, divergence, noise, ts: _log_normal(noise),
        named={"make_solver": "make_solver|solver"},
    ),
    Case(
        "likelihood.bits_per_dimension",
        likelihood.bits_per_dimension,
        {"log_density": numbers(-3.0, 0, 2, refused=(INF, -INF)), "num_dimensions": COUNT, "value_range": POSITIVE},
        lambda log_density, num_dimensions, value_range: (
            -plain(log_density) / (num_dimensions * np.log(2)) + np.log2(256 / plain(value_range))
        ),
    ),
    Case(
        "sweep.sweep",
        lambda draw, one, other, chunk: sweep(draw, one, other, chunk=chunk),
        {"draw": Choices((lambda a, b: jnp.float32(1),), FUNCTIONS), "one": AXIS, "other": AXIS, "chunk": COUNT},
        named={"one": "axis 0", "other": "axis 1"},
    ),
    Case(
        "guidance_diagnostics.by_label",
        _by_label,
        {
            "labels": Choices(
                (jnp.array([0, 1, 0]), np.array([1, 1, 0])),
                (
                    jnp.array([0, 1, 7]),
                    np.array([-1, 0, 1]),
                    jnp.arange(2),
                    jnp.ones(3),
                    "abc",
                    None,
                    jnp.ones((3, 1), int),
                ),
            ),
            "num_classes": COUNT._replace(allowed=(2, 5), more=None),
        },
    ),
    Case(
        "losses.flat",
        losses.flat,
        {"t": Choices((0.5, jnp.float32(1), np.zeros(())), ("t", None, 1j, object()))},
        lambda t: 1.0,
    ),
    Case(
        "training.example_keys",
        lambda key, step, num_local: jax.random.key_data(training.example_keys(key, step, num_local)).shape[0],
        {"key": KEYS, "step": COUNT._replace(refused=(-1, 2.5, NAN, jnp.ones(1, int), *WORDS)), "num_local": COUNT},
        lambda key, step, num_local: int(num_local),
    ),
    Case(
        "training.ema_warmup",
        lambda decay: training.ema_warmup(decay)(jnp.asarray(1000)),
        {"decay": SHARE},
        lambda decay: min(float(decay), 1001 / 1010),
    ),
    Case(
        "training.shard",
        lambda batch, num_devices: training.shard(batch, num_devices),
        {
            "batch": Choices(
                (_batch(12), np.arange(60)),
                ({}, (), 1.0, {"x": np.ones((6, 2)), "y": np.ones(4)}, {"x": np.ones(12), "y": 3.0}, jnp.ones((0, 2))),
            ),
            "num_devices": COUNT._replace(allowed=(1, 2, 3), more=None),
        },
    ),
    Case(
        "training.shard_stacked",
        lambda batches, num_devices: training.shard_stacked(batches, num_devices),
        {
            "batches": Choices(
                ([_batch(12)] * 2, [np.arange(6)]),
                ([], [_batch(12), _batch(6)], [_batch(12), np.arange(12)], [{}], [1.0]),
            ),
            "num_devices": COUNT._replace(allowed=(1, 2, 3), more=None),
        },
        named={"batches": "batches|batch"},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer_is_right_or_the_error_clear(case):
    fuzz(case)


def test_a_loss_over_no_number_is_refused_and_not_nan():
    with pytest.raises(ValueError, match="z must hold at least one number, got the shape \\(0,\\)"):
        jax.jit(lambda z: losses.flow_matching(PATH, lambda x, t: x, KEY, z))(jnp.ones(0))


def test_a_field_in_the_place_of_its_divergence_is_refused():
    """In two dimensions a state would have passed for a value and its divergence."""
    with pytest.raises(TypeError, match="divergence must give \\(value, divergence\\)"):
        likelihood.log_density(solvers.heun, lambda x, t: x, jnp.ones(2), jnp.linspace(1, 0, 4))


def test_losses_pass_their_checks_under_jit_vmap_and_grad():
    keys, z, y = jax.random.split(KEY, 4), jnp.ones((4, 2)), jnp.array([0, 1, 2, 3])

    def loss(size, key, z, y):
        return losses.flow_matching(PATH, lambda x, t, y: size * x + y, key, z, y)

    slopes = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0, 0, 0)))(0.5, keys, z, y)
    single = [jax.grad(loss)(0.5, *each) for each in zip(keys, z, [0, 1, 2, 3], strict=True)]
    np.testing.assert_allclose(slopes, jnp.stack(single), rtol=1e-5)
