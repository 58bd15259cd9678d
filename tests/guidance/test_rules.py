"""The table of published rules: every fact of a record against the rule itself."""

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, paths, solvers
from cfgjax.guidance import RULES
from cfgjax.types import Solver, State

PATH, NULL, Y, OTHER = paths.linear(), 3, 1, 2
X = jnp.array([0.6, -3.7])
T, T_NEXT = jnp.float32(0.3), jnp.float32(0.5)
TS = np.linspace(0, 1, 4)
KEY = jax.random.key(0)
SIGMA = solvers.constant(0.5)
TWO = {"a": jnp.asarray(Y), "b": jnp.asarray(0)}
NO_PAPER = {"skip_layer": "Stable Diffusion 3.5", "adaptive_projected_mix": "HunyuanImage 2.1"}
"""A rule without a paper -> what its source names."""


def _field(x, t, y):
    """An elementwise field: bitwise the same alone as under vmap; its labels differ in size and sign."""
    return x * (y - 1.5) + t * y


def _of_two(field):
    """The field of the conditions "a" and "b", which adds them."""
    return lambda x, t, y: field(x, t, y["a"] + 2 * y["b"])


def _pair(field, null=NULL):
    return guidance.pair(field, null)


def _euler(guided, y=Y):
    return solvers.euler(guidance.given(guided, y))


def _labelled(field):
    return _euler(field)


def _free(field, scale=2.5):
    return _euler(guidance.classifier_free(field, scale, NULL))


def _rule(build):
    """A rule (pair, scale) -> field by Euler's rule."""
    return lambda field, scale: _euler(build(_pair(field), scale))


def _log_classifier(x, t):
    return jax.nn.log_softmax(jnp.sum(x) * jnp.arange(3.0))


def _by_classifier(field, scale):
    return _euler(guidance.classifier(PATH, guidance.given(field, NULL), _log_classifier, scale))


def _weak(field):
    return lambda x, t, y: 0.8 * field(x, t, y) + 0.1


def _weakened(field, scale):
    return _euler(guidance.weakened(_pair(field), _weak(field), 1, scale))


def _internal(field, scale):
    both = lambda x, t, y: (0.8 * (value := field(x, t, y)) + 0.1, value)  # noqa: E731
    return _euler(guidance.extrapolate(guidance.pair_of_sides(both), scale))


def _scales(a, b):
    return {"a": a, "b": b}


def _chain(field, a, b):
    guided = guidance.classifier_free_chain(_of_two(field), _scales(a, b), {"a": NULL, "b": NULL}, ("a", "b"))
    return _euler(guided, TWO)


def _product(field, a, b):
    return _euler(guidance.classifier_free_product(_of_two(field), _scales(a, b), {"a": NULL, "b": NULL}), TWO)


def _adaptive(field, scale, **numbers):
    return solvers.with_field_state(solvers.euler, guidance.adaptive_projected(PATH, _pair(field), scale, Y, **numbers))


def _mixed(field, scale, start=0.2):
    mixed = guidance.adaptive_projected_mix(PATH, _pair(field), scale, scale, Y, start)
    return solvers.with_field_state(solvers.euler, mixed)


def _by_beta(field, scale, *numbers):
    return _free(field, guidance.beta_scale(PATH, scale, *numbers))


def _windowed(field, first, second):
    return _euler(guidance.stages(_pair(field), (0.25,), (first, second)))


def _decoupled(field, scale, *share):
    pair = guidance.frequency_decoupled(_pair(field), guidance.filters.mean_low, *share)
    return _euler(guidance.extrapolate(pair, scale))


def _damped(field, scale, *damping):
    return _euler(guidance.extrapolate(guidance.magnitude_aware(_pair(field), *damping), scale))


def _corrected(field, scale, number=1):
    guided = guidance.given(guidance.classifier_free(field, scale, NULL), Y)
    size = solvers.relative_step(PATH, 0.1)
    return solvers.predictor_corrector_guidance(PATH, guidance.given(field, Y), guided, size, number, solvers.euler)


def _projected_steps(field, scale, *iterate):
    return solvers.manifold_projected(_pair(field), Y, scale, *iterate)


def _in_rounds(field, scale, number=1):
    """One step for the label and, in each round, one with guidance."""
    labelled, guided = _labelled(field), _free(field, scale)
    whole, half = np.linspace(0, 1, 2), np.linspace(0.5, 1, 2)

    def step(key, carry, t, t_next):
        return State(solvers.gibbs_like(PATH, labelled, guided, key, carry.x, whole, half, number))

    return Solver(State, step)


def _particles(field, scale):
    return solvers.feynman_kac(PATH, _pair(field), Y, scale, SIGMA)


class Known(NamedTuple):
    """A rule by its solver: ``build`` of (field, scale); ``neutral`` of a field: it and what it is there, or None."""

    build: Callable[[Any, Any], Any]
    neutral: Callable[[Any], tuple[Any, Any]] | None


def _at_one(build):
    return Known(build, lambda field: (build(field, jnp.float32(1)), _labelled(field)))


def _thresholded(threshold):
    return lambda field, scale, **numbers: _euler(
        threshold(PATH, guidance.classifier_free(field, scale, NULL), **numbers)
    )


_static, _dynamic = _thresholded(guidance.static_threshold), _thresholded(guidance.dynamic_threshold)
_projected = lambda pair, scale, **numbers: guidance.extrapolate(  # noqa: E731
    guidance.projected(PATH, pair, **numbers), scale
)

KNOWN = {
    "classifier_free": _at_one(_free),
    "classifier": Known(_by_classifier, lambda field: (_by_classifier(field, jnp.float32(0)), _euler(field, NULL))),
    "autoguidance": Known(
        lambda field, scale: _euler(guidance.autoguidance(field, _weak(field), scale)),
        lambda field: (_euler(guidance.autoguidance(field, field, 2.5)), _labelled(field)),
    ),
    "negative_label": _at_one(lambda field, scale: _euler(guidance.classifier_free(field, scale, OTHER))),
    "compose": Known(
        lambda field, scale: solvers.euler(
            guidance.compose(field, [Y, OTHER, NULL], jnp.stack([scale, (1 - scale) / 2, (1 - scale) / 2]))
        ),
        lambda field: (
            solvers.euler(guidance.compose(field, [Y, OTHER, NULL], lambda t: jnp.array([1.0, 0.0, 0.0]))),
            _labelled(field),
        ),
    ),
    "classifier_free_chain": Known(
        lambda field, scale: _chain(field, scale, scale),
        lambda field: (
            _chain(field, 2.5, 2.5),
            _euler(guidance.classifier_free(_of_two(field), 2.5, {"a": NULL, "b": NULL}), TWO),
        ),
    ),
    "classifier_free_product": Known(
        lambda field, scale: _product(field, scale, scale),
        lambda field: (_product(field, 0.0, 0.0), _euler(_of_two(field), {"a": NULL, "b": NULL})),
    ),
    "interval": Known(
        lambda field, scale: _free(field, guidance.interval(scale, 0.0, 1.0)),
        lambda field: (_free(field, guidance.interval(2.5, 0.0, 1.0)), _free(field)),
    ),
    "policy": Known(
        lambda field, scale: _free(field, guidance.policy(lambda *point: scale)),
        lambda field: (_free(field, guidance.policy(lambda *point: jnp.float32(2.5))), _free(field)),
    ),
    "rescaled": Known(
        _rule(guidance.rescaled), lambda field: (_euler(guidance.rescaled(_pair(field), 2.5, 0.0)), _free(field))
    ),
    "projected": Known(_rule(_projected), lambda field: (_euler(_projected(_pair(field), 2.5, eta=1.0)), _free(field))),
    "adaptive_projected": Known(
        _adaptive,
        lambda field: (
            _adaptive(field, 2.5, momentum=0.0, eta=0.2),
            _euler(_projected(_pair(field), 2.5, eta=0.2)),
        ),
    ),
    "cfg_zero_star": _at_one(_rule(lambda pair, scale: guidance.extrapolate(guidance.cfg_zero_star(pair), scale))),
    "zero_init": Known(
        lambda field, scale: _euler(guidance.zero_init(guidance.classifier_free(field, scale, NULL), 0.33)),
        lambda field: (_euler(guidance.zero_init(guidance.classifier_free(field, 2.5, NULL), 0.0)), _free(field)),
    ),
    "tangential_damping": _at_one(
        _rule(lambda pair, scale: guidance.extrapolate(guidance.tangential_damping(PATH, pair), scale))
    ),
    "static_threshold": Known(_static, lambda field: (_static(field, 2.5, bound=np.inf), _free(field))),
    "dynamic_threshold": Known(
        _dynamic, lambda field: (_dynamic(field, 2.5, percentile=100.0, bound=1e3), _free(field))
    ),
    "cfg_plus_plus": Known(
        lambda field, scale: solvers.cfg_plus_plus(PATH, _pair(field), Y, scale),
        lambda field: (
            solvers.cfg_plus_plus(PATH, _pair(field), Y, jnp.float32(0)),
            solvers.ddim(PATH, guidance.given(field, NULL)),
        ),
    ),
    "rectified_cfg_plus_plus": _at_one(lambda field, scale: solvers.rectified_cfg_plus_plus(_pair(field), Y, scale)),
    "manifold_projected": Known(
        _projected_steps, lambda field: (_projected_steps(field, 2.5, solvers.picard(0)), _free(field))
    ),
    "gibbs_like": Known(
        _in_rounds,
        lambda field: (
            _in_rounds(field, 2.5, 0),
            Solver(
                State,
                lambda key, carry, *_: State(solvers.integrate(_labelled(field), key, carry.x, np.linspace(0, 1, 2))),
            ),
        ),
    ),
    "feynman_kac": Known(_particles, None),
    "predictor_corrector": Known(_corrected, lambda field: (_corrected(field, 2.5, 0), _labelled(field))),
    "magnitude_aware": Known(_damped, lambda field: (_damped(field, 2.5, 0), _free(field))),
    "frequency_decoupled": Known(_decoupled, lambda field: (_decoupled(field, 2.5, 1), _free(field))),
    "adaptive_projected_mix": Known(_mixed, lambda field: (_mixed(field, 2.5, 1.0), _free(field))),
    "beta_scale": Known(_by_beta, lambda field: (_by_beta(field, 2.5, 1.0, 1.0, 0.0), _free(field))),
    "exponential_scale": Known(
        lambda field, scale: _free(field, guidance.exponential_scale(scale, 0.5)),
        lambda field: (_free(field, guidance.exponential_scale(2.5, 0.0)), _free(field)),
    ),
    "negative_window": Known(
        lambda field, scale: _windowed(field, scale, -0.5), lambda field: (_windowed(field, 2.5, 2.5), _free(field))
    ),
    "annealed": _at_one(lambda field, scale: _free(field, guidance.gap_policy(PATH, lambda t, y, gap: scale))),
    "learn_to_guide": _at_one(lambda field, scale: _free(field, lambda t, y: scale)),
    "skip_layer": _at_one(_weakened),
    "perturbed_attention": _at_one(_weakened),
    "smoothed_energy": _at_one(_weakened),
    "spatio_temporal_skip": _at_one(_weakened),
    "internal": _at_one(_internal),
}
"""The name of every rule -> how it is made."""


def _piece(solver):
    return solver.pieces[int(solver.index(T))] if hasattr(solver, "pieces") else solver


def _end(solver):
    """Where one step from X leads."""
    solver = _piece(solver)
    return np.asarray(solver.step(KEY, solver.init(X), T, T_NEXT).x)


def test_every_rule_is_known():
    assert RULES.keys() == KNOWN.keys()
    assert all(name == rule.name for name, rule in RULES.items())
    assert len(RULES) >= 25


@pytest.mark.parametrize("name", RULES)
def test_a_rule_names_its_paper_and_its_place(name):
    rule = RULES[name]
    assert re.search(r"^[A-Z].*, arXiv \d{4}\.\d{5}$", rule.paper) or NO_PAPER[name] in rule.paper
    module, _, function = rule.where.rpartition(".")
    assert callable(getattr(importlib.import_module(f"cfgjax.{module}"), function))
    assert {*rule.space.split(" and ")} <= {"any", "vector field", "denoiser", "noise prediction", "score", "state"}


@pytest.mark.parametrize("name", RULES)
def test_a_step_costs_what_is_told(name):
    x = jnp.stack([X, X]) if name == "feynman_kac" else X
    found = solvers.num_function_evaluations(lambda field: KNOWN[name].build(field, 2.5), _field, x, TS)
    each = RULES[name].evaluations * (2 if name == "feynman_kac" else 1)
    assert found.tolist() == [0 if name == "zero_init" else each, each, each]


@pytest.mark.parametrize("name", RULES)
def test_a_memory_lies_in_the_carry(name):
    carry = _piece(KNOWN[name].build(_field, 2.5)).init(jnp.stack([X, X]) if name == "feynman_kac" else X)
    assert RULES[name].has_memory == (len(jax.tree.leaves(carry)) > 1)


@pytest.mark.parametrize("name", [name for name, known in KNOWN.items() if known.neutral is not None])
def test_the_neutral_setting_is_another_rule(name):
    found, expected = map(_end, KNOWN[name].neutral(_field))
    if RULES[name].neutral.endswith("to rounding"):
        np.testing.assert_allclose(found, expected, rtol=3e-6, atol=3e-6)
    else:
        np.testing.assert_array_equal(found, expected)
    assert np.max(np.abs(_end(KNOWN[name].build(_field, 3.5)) - expected)) > 1e-3


@pytest.mark.parametrize("name", [name for name in RULES if name != "feynman_kac"])
def test_w_one_is_the_labelled_fields_step_where_that_is_told(name):
    one = jnp.float32(1)
    found, is_of_two = (
        _end(KNOWN[name].build(_field, one)),
        name in ("classifier_free_chain", "classifier_free_product"),
    )
    expected = _end(_euler(_of_two(_field), TWO) if is_of_two else _labelled(_field))
    assert np.array_equal(found, expected) == RULES[name].is_labelled_at_one


def _row(rule):
    is_labelled = "yes" if rule.is_labelled_at_one else "no"
    facts = (rule.name, f"`{rule.where}`", rule.space, str(rule.evaluations), rule.neutral, is_labelled, rule.paper)
    return f"| {' | '.join(facts)} |"


def test_the_page_of_guidance_has_the_table():
    page = (Path(__file__).parent.parent.parent / "docs" / "guidance.md").read_text()
    table = page.partition("## All rules in one table")[2].partition("\n## ")[0]
    assert [line for line in table.splitlines() if line.startswith("| ")][1:] == [_row(rule) for rule in RULES.values()]
    told = table.partition("carry: ")[2].partition(".\n")[0].split(", ")
    assert told == [name for name, rule in RULES.items() if rule.has_memory]
