"""The doors of the verification: one clear error for what is nothing to verify, before anything is computed."""

import jax.numpy as jnp
import pytest

from cfgjax import guidance, losses, solvers, verify
from tests.support.doors import (
    COUNT,
    FUNCTIONS,
    INF,
    MIXTURE,
    NAN,
    NUM_CLASSES,
    PATH,
    PATHS,
    POSITIVE,
    WORDS,
    Door,
    Kind,
    knock_often,
    numbers,
)

SEED = COUNT._replace(refused=(-1, 2.5, NAN, jnp.ones(2, int), 2**40, *WORDS))
PATH_OR_NONE = Kind((None, PATH), tuple(each for each in PATHS.refused if each is not None))
MIXTURE_OR_NONE = Kind((None, MIXTURE), ("mixture", 3, lambda x: x, ()))
VIEW = Kind(("field", "score"), ("velocity", "", None, 3))
ORACLE = {"path": PATH_OR_NONE, "mixture": MIXTURE_OR_NONE, "seed": SEED}
ORDER = POSITIVE._replace(allowed=(1, 2.0), more=None)


def _kind(function):
    return Kind((function,), FUNCTIONS)


DOORS = [
    Door(
        "verify.field",
        verify.field,
        {
            "field": _kind(MIXTURE.vector_field(PATH)),
            "path": PATHS,
            "mixture": Kind((MIXTURE,), ("mixture", 3, None)),
            "view": VIEW,
            "tolerance": POSITIVE,
            "seed": SEED,
        },
    ),
    Door("verify.guidance", verify.guidance, ORACLE | {"rule": _kind(guidance.classifier_free), "tolerance": POSITIVE}),
    Door(
        "verify.rule",
        verify.rule,
        ORACLE
        | {
            "rule": _kind(guidance.classifier_free),
            "neutral": Kind((1.0, guidance.classifier_free, (0, 1.0)), (None, "one", (), (None,), NAN, jnp.ones(2))),
            "tolerance": POSITIVE,
        },
    ),
    Door("verify.solver", verify.solver, ORACLE | {"make_solver": _kind(solvers.heun), "order": ORDER}),
    Door("verify.sampler", verify.sampler, ORACLE | {"draw": _kind(lambda *args: args[2]), "order": ORDER}),
    Door("verify.diffusion", verify.diffusion, ORACLE | {"make_solver": _kind(solvers.euler_maruyama)}),
    Door("verify.loss", verify.loss, ORACLE | {"loss": _kind(losses.flow_matching), "view": VIEW}),
    Door(
        "verify.label_dropping",
        verify.label_dropping,
        {
            "drop": _kind(lambda key, y: y),
            "rate": numbers(0.25, 0.5, refused=(0, 1, -0.5, INF)),
            "num_classes": COUNT,
            "seed": SEED,
        },
    ),
    Door(
        "verify.samples",
        verify.samples,
        {
            "draw": _kind(lambda key, y: jnp.ones((len(y), 2))),
            "mixture": Kind((MIXTURE,), ("mixture", 3, None)),
            "bias": numbers(0.25, 0, refused=(-1, INF)),
            "num_samples": COUNT._replace(allowed=(64,), more=None).but(refused=(1, 2 * NUM_CLASSES - 1)),
            "seed": SEED,
        },
    ),
]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_what_is_nothing_to_verify_is_refused(door):
    knock_often(door, 20, least=1)
