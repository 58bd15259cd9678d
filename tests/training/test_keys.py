"""Keys whose draws under vmap are not those of a loop: refused where a key enters, and never made by the library.

``jax.vmap`` draws for keys of "rbg" and "unsafe_rbg" all rows from the FIRST key (JAX 0.10.2, the notes on jax.random:
"keys are not batched over in the usual way"). Then what an example sees depends on its place in the batch: one device
and two would train to other parameters, and a batch of 8 samples to others than two of 4.
"""

import ast
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import cfgjax
from cfgjax import guidance, paths, solvers, training, verify
from cfgjax.analysis import likelihood
from cfgjax.analysis.sweep import sweep
from tests.support.calls import MIXTURE, NUM_CLASSES, PATH, UP

IMPLS = ["rbg", "unsafe_rbg"]
SOURCES = sorted(Path(cfgjax.__file__).parent.rglob("*.py"))
REASON = "of threefry2x32, as jax.random.key\\(0, impl='threefry2x32'\\) is, got {}: under jax.vmap"


def _normals(keys):
    return jax.vmap(lambda key: jax.random.normal(key, (2,)))(keys)


@pytest.mark.parametrize(("impl", "is_a_loop"), [("threefry2x32", True), ("rbg", False), ("unsafe_rbg", False)])
def test_the_reason(impl, is_a_loop):
    """Of the three, threefry's rows alone are those of their own keys; should rbg's become so, it may be taken."""
    keys = jax.random.split(jax.random.key(0, impl=impl), 4)
    each = jnp.stack([jax.random.normal(key, (2,)) for key in keys])
    assert bool(jnp.all(_normals(keys) == each)) is is_a_loop
    assert bool(jnp.all(_normals(keys)[2:] == _normals(keys[2:]))) is is_a_loop


def _enters(key):
    """Every public way of a key into training and sampling that is not refused elsewhere by the fuzz of calls."""
    step = partial(training.example_keys, step=0, num_local=2)
    return {
        "training.init_state": lambda: training.init_state({"a": jnp.ones(2)}, optax.sgd(0.1), key),
        "training.example_keys": lambda: step(key),
        "solvers.integrate": lambda: solvers.integrate(solvers.heun(lambda x, t: -x), key, jnp.ones(2), UP),
        "mapped": lambda: jax.jit(jax.vmap(lambda key: paths.sample(PATH, key, jnp.ones(2), 0.5)))(key[None]),
        "sweeps.sweep": lambda: sweep(lambda key, scale: scale * jax.random.normal(key), key[None], jnp.ones(2)),
    }


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("name", _enters(None))
def test_a_key_that_rows_would_share_is_refused_with_the_reason(name, impl):
    with pytest.raises(ValueError, match=REASON.format(impl)):
        _enters(jax.random.key(0, impl=impl))[name]()


def test_a_raw_key_is_of_the_default_implementation():
    """Raw keys do not say what they are: JAX takes them for keys of JAX_DEFAULT_PRNG_IMPL."""
    raw = jax.random.PRNGKey(0)
    draw = lambda key: paths.sample(PATH, key, jnp.ones(2), 0.5).x  # noqa: E731
    np.testing.assert_array_equal(draw(raw), draw(jax.random.key(0)))
    with jax.default_prng_impl("rbg"), pytest.raises(ValueError, match=REASON.format("rbg")):
        draw(jax.random.PRNGKey(0))


def test_every_key_of_the_library_says_its_implementation():
    calls = [
        (file.name, node)
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("jax.random.key", "jax.random.PRNGKey")
    ]
    assert calls
    assert not [ast.unparse(call) for _, call in calls if "impl" not in [keyword.arg for keyword in call.keywords]]


def _answers():
    start, field = jnp.array([0.5, -0.25]), MIXTURE.vector_field(PATH)
    divergence = likelihood.exact_divergence(guidance.given(field, 1))
    drop = lambda key, y: guidance.drop_condition(key, y, 0.1, NUM_CLASSES)  # noqa: E731
    return (
        likelihood.log_density(solvers.heun, divergence, start, UP[::-1] * 0.9),
        solvers.num_function_evaluations(lambda field: solvers.heun(guidance.given(field, 0)), field, start, UP),
        [check.measured for check in verify.label_dropping(drop, 0.1, NUM_CLASSES).checks],
    )


def test_the_library_draws_the_same_where_the_environment_asks_for_other_keys():
    with jax.default_prng_impl("rbg"):
        found = _answers()
    jax.tree.map(np.testing.assert_array_equal, found, _answers())
