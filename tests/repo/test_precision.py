"""No float32 product of matrices of the library's own is computed in less on an accelerator: read off what is lowered.

A TPU computes a float32 product in bfloat16, a GPU in TF32, unless the program asks for more: the oracle, and all that
is measured against it, would be right to three digits there. Sums of products are written out, or the product says
``precision=jax.lax.Precision.HIGHEST``. Networks alone take the caller's (``tests/experiments/test_matmul_precision``).
"""

import ast
import importlib
import inspect
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cfgjax import flow_maps, guidance, losses, mixtures, paths, solvers, steering, training, verify
from cfgjax.analysis import certificates, guidance_diagnostics, importance, likelihood, reuse
from cfgjax.types import Solver
from experiments import guided_distributions
from tests.conftest import PATHS
from tests.contracts.test_every_function import ASKED, PARTS, TABLES, _public
from tests.contracts.test_values import _arguments
from tests.support.lowered import ROOT, lowered, narrowed, products, recorded
from tests.support.tables import NULL, RULES, SOLVERS
from tests.support.values import MEASUREMENT, NAMED

LEFT_OUT = {
    "checkpoints": "files",
    "data": "files, and pictures one by one",
    "described": "comparisons of numbers",
    "freezing": "parameters as they are, and functions of the caller's",
    "fsdp": "places the step's program on devices",
    "measured": "sums over the pixels of one picture",
    "models": "networks, whose products have the caller's precision",
    "piecewise": "of functions, not of numbers",
    "pretrained": "networks, and their files",
    "pretrained_autoencoder": "networks, and their files",
    "pretrained_inception": "networks, and their files",
    "sentences": "integers",
    "verify": "compiles by itself: test_what_verify_compiles_is_exact",
}
"""A part of the library whose functions are not lowered here one by one -> why."""
NOT_LOWERED = {
    "conditions.without": "of functions, not of numbers",
    "guidance.reuse_every": "words",
    "reuse.error_model": "on the host, in float64",
    "reuse.plan": "likewise",
    "reuse.predicted_error": "likewise",
    "reuse.solve_schedule": "likewise",
    "posthoc_ema.exponent_of": "a Python scalar",
    "training.MultiStep": "record",
    "training.pmapped": "places the step's program on devices",
    "training.shard_stacked": "shapes of NumPy's arrays",
}
"""A function likewise."""

PATH, MIXTURE, KEY = paths.linear(), mixtures.ring(NULL), jax.random.key(7)
ORACLE = MIXTURE.vector_field(PATH)
JOINT = mixtures.joint(MIXTURE, np.eye(2), 0.5)
GUIDED = guidance.given(guidance.classifier_free(ORACLE, 2.5, NULL), 1)
X, TS = jnp.array([1.0, -2.0]), jnp.linspace(0.0, 1.0, 3)
TIMES = {"t": 0.25, "r": 0.75, "t_next": 0.5}
POINT = NAMED | TIMES | {"key": KEY, "x": X, "y": 1, "rest": 1, "step": jnp.asarray(3), "mean_square": 2.0}
POINT |= {"estimate": X, "null": X, "labelled": 2.0 * X, "g": lambda x: 0.5 * x}
"""Arguments, by their names, of what builders make."""


def _used(value):
    """What a function gives, or what that gives in turn where it is a function, a solver or the sides of guidance."""
    if isinstance(value, Solver):
        return solvers.integrate(value, KEY, X, TS)
    if isinstance(value, tuple | list):
        return [_used(each) for each in value]
    if callable(value):
        return _used(value(*(POINT[name] for name in inspect.signature(value).parameters)))
    return value


def _step():
    def loss(params, key, z):
        return losses.flow_matching(PATH, lambda x, t: params * x, key, z)

    step = training.make_step(loss, optax.adamw(1e-3), training.ema_warmup(0.9), average_decays=(0.5,))
    state = training.init_state(jnp.ones(2), optax.adamw(1e-3), KEY, 1)
    return training.multi_step(step)(state, jnp.ones((2, 4, 2)))


def _diagnosed():
    observe = guidance_diagnostics.diagnostics(PATH, guidance.pair(ORACLE, NULL), KEY, 2.5, 1)
    seen = solvers.solve(solvers.heun(GUIDED), KEY, X, TS, observe)[1]
    return guidance_diagnostics.by_label(jax.tree.map(lambda leaf: leaf[None], seen), jnp.array([1]), NULL)


def _likelihoods(divergence):
    down = likelihood.log_density(solvers.heun, divergence, X, TS[::-1])
    return down, likelihood.sample_log_density(solvers.heun, divergence, X, TS)


LAWS = flow_maps.Gaussian(jnp.zeros(2), jnp.ones(2)), flow_maps.Gaussian(jnp.ones(2), jnp.full(2, 0.5))


def _reused():
    sides, ts = guidance.pair(ORACLE, NULL), np.linspace(0, 1, 5, dtype=np.float32)
    field = guidance.reused(sides, 2.5, 1, guidance.reuse_every(ts, 2))
    spared = solvers.integrate(solvers.with_field_state(solvers.heun, field), KEY, X, ts)
    return spared, reuse.record(solvers.heun, sides, KEY, X, ts, 2.5, 1)


def _flow(x, t, r, y):
    return x + (r - t) * ORACLE(x, t, y)


def _flow_map(flow_map, *rest):
    return flow_map(X, 0.25, 0.5, 1, *rest)


def _weighted():
    divergence, density = likelihood.exact_divergence(GUIDED), MIXTURE.log_density(PATH)
    one = importance.weighted_sample(solvers.heun, divergence, lambda x, y: density(x, 1.0, y), X, TS, 1, NULL, 2.0)
    return one, importance.scale_by_effective_size(lambda scale: scale * jnp.arange(3.0), jnp.ones(2))


LINEAR, PRECISION = jnp.ones(2), jnp.eye(2)
OF_MIXTURES = {
    "guided_log_density": lambda: jax.grad(
        mixtures.guided_log_density(MIXTURE, steering.log_likelihood(MEASUREMENT), 2.0)
    )(X, 1),
    "guided_sample": lambda: mixtures.guided_sample(MIXTURE, MIXTURE, KEY, 1, 2.0),
    "likelihood": lambda: jax.grad(mixtures.likelihood(PATH, MIXTURE, MEASUREMENT), (0, 1))(X, 0.25, 1),
    "log_evidence": lambda: mixtures.log_evidence(MIXTURE, MEASUREMENT)(1),
    "log_normaliser": lambda: mixtures.log_normaliser(MIXTURE, LINEAR, PRECISION)(1),
    "posterior": lambda: jax.tree.leaves(mixtures.posterior(MIXTURE, MEASUREMENT)),
    "rewarded": lambda: jax.tree.leaves(mixtures.rewarded(MIXTURE, LINEAR, PRECISION)),
    "transition": lambda: jax.tree.leaves(mixtures.transition(PATH, MIXTURE, X, 0.25, 0.5, 0.5)),
}


def _steered(name, *settings):
    """Particles that steering moves, by its builder's name."""
    reward = steering.of_denoised(PATH, GUIDED, steering.log_likelihood(MEASUREMENT))
    build, diffusion = getattr(steering, name), solvers.constant(0.5)
    is_of_a_field = name in ("tilted", "twisted")
    mover = (PATH, GUIDED) if is_of_a_field else (solvers.euler_maruyama(PATH, GUIDED, diffusion),)
    solver = build(*mover, reward, *((diffusion,) if is_of_a_field else settings))
    return solvers.solve(solver, KEY, jnp.stack([X, -X]), TS)


BY_HAND = {
    "certificates.map_log_ratio": lambda: certificates.map_log_ratio(jnp.tanh, jnp.sin, X),
    "guidance.reused": _reused,
    "reuse.record": _reused,
    "importance.weighted_sample": _weighted,
    "importance.scale_by_effective_size": _weighted,
    **{f"mixtures.{name}": program for name, program in OF_MIXTURES.items()},
    "guidance.drop_condition": lambda: guidance.drop_condition(KEY, jnp.asarray(1), 0.1, NULL),
    "guidance.classifier_free_chain": lambda: guidance.classifier_free_chain(
        JOINT.vector_field(PATH), {"label": 2.0, "vector": 3.0}, JOINT.null, ("label", "vector")
    )(X, 0.25, JOINT.null),
    "guidance.classifier_free_product": lambda: guidance.classifier_free_product(
        JOINT.vector_field(PATH), {"label": 2.0, "vector": 3.0}, JOINT.null
    )(X, 0.25, JOINT.null),
    "mixtures.JointMixture": lambda: jax.grad(lambda x: JOINT.condition_log_prob(PATH)(x, 0.25, JOINT.null))(X),
    "guidance.zero_init": lambda: guidance.zero_init(GUIDED, 0.25)(X, 0.5),
    "guidance_diagnostics.diagnostics": _diagnosed,
    "guidance_diagnostics.by_label": _diagnosed,
    "flow_maps.average_velocity_of": lambda: _flow_map(flow_maps.average_velocity_of(_flow, ORACLE)),
    "flow_maps.exact": lambda: _flow_map(flow_maps.exact(PATH, MIXTURE), guidance.interval(2.5, 0.2, 0.8)),
    "flow_maps.field_of": lambda: flow_maps.field_of(_flow)(X, 0.25, 1),
    "flow_maps.flow_of": lambda: _flow_map(flow_maps.flow_of(_flow)),
    "flow_maps.forward_only": lambda: _flow_map(flow_maps.forward_only(_flow)),
    "flow_maps.gaussian": lambda: flow_maps.gaussian(PATH, *LAWS)(X, 0.25, 0.5, guidance.interval(2.5, 0.2, 0.8)),
    "flow_maps.given": lambda: flow_maps.given(_flow, 1)(X, 0.25, 0.5),
    "flow_maps.of_field": lambda: _flow_map(flow_maps.of_field(solvers.heun, ORACLE, 3)),
    "likelihood of the exact divergence": lambda: _likelihoods(likelihood.exact_divergence(GUIDED)),
    "likelihood of an estimate": lambda: _likelihoods(likelihood.estimated_divergence(GUIDED, KEY)),
    **{
        f"steering.{name}": lambda row=row: row.rule(PATH, GUIDED, MEASUREMENT, 1.5)(X, 0.25)
        for name, row in steering.METHODS.items()
        if row.rule is not None
    },
    **{f"steering.{name}": lambda name=name: _steered(name) for name in ("tilted", "twisted", "smc", "fk_steering")},
    **{
        f"steering.{name}": lambda name=name: _steered("fk_steering", getattr(steering, name))
        for name in ("difference", "maximum", "total")
    },
    "steering.measure": lambda: steering.measure(MEASUREMENT.operator, KEY, X, 0.5).value,
    "training.init_state": _step,
    "training.multi_step": _step,
    **{f"paths.{name}": lambda path=path: paths.coefficients(path, 0.25) for name, path in PATHS.items()},
    **{f"a rule: {name}": lambda row=row: row.build(PATH, ORACLE, 2.5)(X, 0.25, 1) for name, row in RULES.items()},
    **{
        f"solvers.{name}": lambda row=row: solvers.solve(
            row.build(PATH, GUIDED), KEY, jnp.stack([X, -X]) if row.is_weighted else X, TS
        )
        for name, row in SOLVERS.items()
    },
}
"""Programs with numbers that their functions need, or that are worth it, by name."""


def _names(case):
    part, _, rest = case.name.partition(".")
    return {f"{part}.{word}" for word in re.findall(r"(?:^|, )(\w+)", rest)}


CASES = [case for table in TABLES for case in importlib.import_module(f"tests.contracts.{table}").CASES]
ALLOWED = {
    case.name: lambda case=case: case.call(**{name: each.allowed[0] for name, each in case.choices.items()})
    for case in CASES
    if not _names(case) & (BY_HAND.keys() | NOT_LOWERED.keys())
}
FUNCTIONS = {name: value for part in PARTS for name, value in _public(part).items()}
USUAL = {
    name: lambda function=FUNCTIONS[name]: function(**_arguments(function))
    for name in set(ASKED) - {name for case in CASES for name in _names(case)} - BY_HAND.keys() - NOT_LOWERED.keys()
}
PROGRAMS = ALLOWED | USUAL | BY_HAND
"""Every public function of the library by its case, by values that its annotations allow, or by hand."""


def _part(name):
    return re.split(r"[.: ]", name)[0]


HELD = sorted({_part(name) for name in PROGRAMS} - LEFT_OUT.keys())


@pytest.mark.parametrize("part", HELD)
def test_no_product_is_narrowed_on_an_accelerator(part):
    names = sorted(name for name in PROGRAMS if _part(name) == part)
    found = {name: narrowed(lowered(lambda name=name: _used(PROGRAMS[name]()))) for name in names}
    assert {name: places for name, places in found.items() if places} == {}


def test_what_is_left_out_is_there():
    assert sorted(LEFT_OUT.keys() - {_part(name) for name in ASKED}) == []
    assert sorted(NOT_LOWERED.keys() - set(ASKED)) == []


@pytest.mark.parametrize("view", ["vector_field", "score", "noise", "denoiser", "log_density"])
def test_the_oracle_has_no_product_at_all(view):
    """Mapped over examples and differentiated, too."""

    def program(x, t, y):
        view_of = getattr(MIXTURE, view)(PATH)
        slope = jax.grad(lambda x: jnp.sum(view_of(x, t, y)))
        return view_of(x, t, y), slope(x)

    assert products(lowered(jax.vmap(program), jnp.ones((5, 2)), jnp.full(5, 0.25), jnp.arange(5) % NULL)) == []


@pytest.mark.parametrize("view", ["log_density", "condition_log_prob", "vector_field", "score", "noise", "denoiser"])
def test_the_oracle_of_several_conditions_has_no_product_at_all(view):
    def program(x, t, c):
        view_of, y = getattr(JOINT, view)(PATH), JOINT.null | {"vector": c}
        return view_of(x, t, y), jax.grad(lambda x: jnp.sum(view_of(x, t, y)))(x)

    assert products(lowered(jax.vmap(program), jnp.ones((5, 2)), jnp.full(5, 0.25), jnp.ones((5, 2)))) == []


def _sampler(field, key, x, ts, y, scale, null):
    return solvers.integrate(solvers.heun(guidance.given(guidance.classifier_free(field, scale, null), y)), key, x, ts)


VERIFIED = {
    "conditional_field": lambda: verify.conditional_field(JOINT.vector_field(PATH), PATH),
    "dropping": lambda: verify.dropping(
        lambda key, y: guidance.drop_condition(key, y, 0.1, NULL), NULL, 0.1, MIXTURE.sample_label
    ),
    "diffusion": lambda: verify.diffusion(solvers.euler_maruyama),
    "field": lambda: verify.field(ORACLE, PATH, MIXTURE),
    "flow_map": lambda: verify.flow_map(lambda x, t, r, y, w: w * x),
    "flow_map_loss": lambda: verify.flow_map_loss(
        lambda path, flow_map, key, z, y, w: jnp.mean(jnp.square(flow_map(z, 0.25, 0.5, y, w) - z))
    ),
    "guidance": lambda: verify.guidance(guidance.classifier_free),
    "label_dropping": lambda: verify.label_dropping(
        lambda key, y: guidance.drop_condition(key, y, 0.1, NULL), 0.1, NULL
    ),
    "loss": lambda: verify.loss(losses.flow_matching),
    "posterior": lambda: verify.posterior(lambda path, field, measurement: field),
    "rule": lambda: verify.rule(lambda field, scale, null: guidance.rescaled(guidance.pair(field, null), scale, 0.5)),
    "sampler": lambda: verify.sampler(_sampler, 2),
    "samples": lambda: verify.samples(lambda key, y: np.ones((len(y), 2)), MIXTURE),
    "solver": lambda: verify.solver(solvers.heun, 2),
}
"""By each function of ``verify``, what it looks at."""


@pytest.mark.parametrize("name", sorted(VERIFIED))
def test_what_verify_compiles_is_exact(name, monkeypatch):
    """With random numbers for what the programs would give, checks fail, and the programs that find causes come too."""
    with recorded(monkeypatch, verify) as programs, warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        assert not VERIFIED[name]().passed
    assert len(programs) > 0 or name == "samples"
    assert narrowed(*programs) == []


def test_every_function_of_verify_is_looked_at():
    kinds = {name for name, value in _public("verify").items() if inspect.isfunction(value)}
    assert {f"verify.{name}" for name in VERIFIED} == kinds


def test_moments_of_weighted_particles_are_exact():
    assert narrowed(lowered(guided_distributions.moments, jnp.ones(5), jnp.ones(5))) == []


# What is not lowered here

WITH_NETWORKS = ("cfgjax/models/", "experiments/benchmark/", "experiments/notebooks/")
"""Where products are those of networks."""
SOURCES = sorted(
    path
    for package in ("cfgjax", "experiments")
    for path in (ROOT / package).rglob("*.py")
    if not str(path.relative_to(ROOT)).startswith(WITH_NETWORKS)
)
PRODUCT = re.compile(r"\b(jnp\.(dot|matmul|einsum|tensordot|vdot|vecdot|inner|convolve)|lax\.(dot|conv))\w*")
EXACT = "jax.lax.Precision.HIGHEST"


def _silent_products(source):
    """The lines of the products of JAX, by name, that do not say they are exact."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        call.lineno
        for call in calls
        if any(PRODUCT.fullmatch(ast.unparse(each)) for each in (call.func, *call.args))
        and not any(each.arg == "precision" and ast.unparse(each.value) == EXACT for each in call.keywords)
    ]


def test_products_of_jax_say_that_they_are_exact():
    found = {str(path.relative_to(ROOT)): _silent_products(path.read_text()) for path in SOURCES}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_a_silent_product_is_found():
    silent = "jnp.dot(a, b)\njnp.einsum(s, a, precision='high')\npartial(jnp.vdot, a)\nlax.dot_general(a, b, c)"
    assert _silent_products(silent) == [1, 2, 3, 4]
    assert _silent_products(f"jnp.dot(a, b, precision={EXACT})\nnp.dot(a, b)\njnp.sum(a)") == []


# What is read


@pytest.mark.parametrize(
    ("function", "is_narrowed"),
    [
        (lambda a: a @ a, True),
        (lambda a: jnp.einsum("ij,kj->ik", a, a, precision="high"), True),
        (lambda a: jnp.tensordot(a[0], a, axes=1), True),
        (lambda a: jax.lax.conv_general_dilated(a[None, None], a[None, None], (1, 1), "SAME"), True),
        (lambda a: jax.lax.scan(lambda b, _: (a @ b, None), a, None, 2)[0], True),
        (lambda a: jax.lax.cond(a[0, 0] > 0, lambda a: a @ a, lambda a: a, a), True),
        (lambda a: jax.grad(lambda b: jnp.sum(b @ a))(a), True),
        (lambda a: jax.lax.platform_dependent(a, tpu=lambda a: a @ a, default=lambda a: a), True),
        (lambda a: jax.lax.platform_dependent(a, cuda=lambda a: a @ a, default=lambda a: a), True),
        (lambda a: jnp.dot(a, a, precision=jax.lax.Precision.HIGHEST), False),
        (lambda a: jax.grad(lambda b: jnp.sum(jnp.dot(b, a, precision="highest")))(a), False),
        (lambda a: a.astype(jnp.bfloat16) @ a.astype(jnp.bfloat16), False),
        (lambda a: jnp.sum(a * a, axis=1), False),
    ],
)
def test_a_narrowed_product_is_found(function, is_narrowed):
    places = narrowed(lowered(function, jnp.eye(3)))
    assert [place.partition(":")[0] for place in places] == ["tests/repo/test_precision.py"] * is_narrowed


def test_a_narrowed_product_of_doubles_is_found(x64):
    assert narrowed(lowered(lambda a: a @ a, jnp.eye(3))) != []
