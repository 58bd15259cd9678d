"""The ladder of rules: its problems and laws, its measures, what it counts, and rules of the user's own."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ive

from cfgjax import guidance, metrics, paths
from cfgjax.guidance.rules import RULES
from cfgjax.mixtures import LabelledMixture
from experiments.cli.main import UserError
from experiments.config import samplers
from experiments.ladder import laws, stored, user_rules
from experiments.ladder.__main__ import FULL, SMALL, MovedError, Options, main, run
from experiments.ladder.climb import Found, Result, Sweep, climb
from experiments.ladder.figure import picture
from experiments.ladder.page import page, table
from experiments.ladder.problems import OTHER_STD, Problem
from experiments.ladder.programs import PATHS, Size, num_evaluations, sample
from experiments.ladder.rules import ALL, FIRST_STEPS, LADDER, NUM_ROUNDS, OWN, ROUND_STEPS, Cell, of_rule

PLANE = Problem(2).plane
GRID = laws.grid_of(PLANE)


def test_the_field_is_that_of_the_whole_mixture():
    """In 5-D with every covariance written out, for each label and the null."""
    means = np.concatenate([np.asarray(PLANE.means), np.zeros((3, 3, 3))], axis=-1)
    covariances = np.broadcast_to(OTHER_STD**2 * np.eye(5), (3, 3, 5, 5)).copy()
    covariances[..., :2, :2] = np.asarray(PLANE.covariances)
    whole = LabelledMixture(PLANE.weights, jnp.asarray(np.float32(means)), jnp.asarray(np.float32(covariances)))
    x = jax.random.normal(jax.random.key(0), (4, 5))
    t, y = jnp.asarray([0.0, 0.3, 0.8, 0.97]), jnp.arange(4)
    for path in (paths.linear(), paths.variance_preserving()):
        found, wanted = (jax.vmap(each.field(path))(x, t, y) for each in (Problem(5), _Whole(whole)))
        np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5)


class _Whole:
    def __init__(self, mixture):
        self.field = mixture.vector_field


def test_the_grid_holds_the_densities_and_the_laws():
    chosen = np.random.default_rng(0).choice(len(GRID.points), 20)
    density = PLANE.log_density(paths.linear())
    for y, values in ((3, GRID.null), (0, GRID.labelled)):
        wanted = jax.vmap(lambda x, y=y: density(x, jnp.ones(()), y))(jnp.asarray(GRID.points[chosen], jnp.float32))
        np.testing.assert_allclose(values[chosen], wanted, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(np.exp(GRID.null).sum() * GRID.cell**2, 1, atol=1e-6)
    is_edge = np.abs(GRID.points).max(axis=1) > laws.REACH - 0.1
    for scale in FULL.scales:
        assert laws.probabilities(GRID, scale)[is_edge].sum() < 1e-6


def test_of_one_label_every_w_has_the_law_of_its_gaussian():
    one = LabelledMixture(jnp.ones((1, 1)), jnp.asarray([[[0.3, -0.2]]]), 0.04 * jnp.eye(2)[None, None])
    draws = laws.draw(laws.grid_of(one), 3.0, 20_000, 0)
    np.testing.assert_allclose(draws.mean(axis=0), [0.3, -0.2], atol=4 * 0.2 / np.sqrt(20_000))
    np.testing.assert_allclose(np.cov(draws.T), 0.04 * np.eye(2), atol=4 * 0.04 * np.sqrt(2 / 20_000))


def _law(draws):
    within = np.linalg.norm(draws[:, None] - draws, axis=-1).sum() / (len(draws) * (len(draws) - 1))
    return laws.Law(np.float32(draws), np.float32(within), np.zeros(9, np.float32))


def test_the_distance_is_that_of_the_metrics():
    rng = np.random.default_rng(0)
    points, draws = rng.normal(size=(60, 2)), rng.normal(size=(90, 2)) + 0.3
    found = jax.jit(laws.energy_distance)(jnp.asarray(np.float32(points)), _law(draws))
    np.testing.assert_allclose(found, metrics.energy_distance(points, draws), atol=1e-6)


def test_the_distance_of_a_moved_gaussian_is_its_closed_form():
    """Of N(m, s^2 I) and N(0, s^2 I) it is 2 (R(|m|) - R(0)), R the mean of a Rice variable of scale s sqrt(2)."""
    std, move, size = 0.16, 0.2, 2000

    def rice(shift):
        half = shift**2 / (8 * std**2)
        return std * np.sqrt(np.pi) * ((1 + 2 * half) * ive(0, half) + 2 * half * ive(1, half))

    rng = np.random.default_rng(1)
    draws, points = std * rng.normal(size=(2, size, 2))
    found = jax.jit(laws.energy_distance)(jnp.asarray(np.float32(points + np.array([move, 0]))), _law(draws))
    np.testing.assert_allclose(found, 2 * (rice(move) - rice(0)), atol=4 * move * np.sqrt(2 / size))
    assert found > 10 * abs(jax.jit(laws.energy_distance)(jnp.asarray(np.float32(points)), _law(draws)))


def test_coverage_is_the_common_part_of_the_shares():
    """All points at one component of share a fifth, then two thirds there and one at another of a half."""
    means = PLANE.means.reshape(-1, 2)
    law = _law(np.zeros((2, 2)))._replace(shares=np.float32([0.2, 0.5, 0.3, 0, 0, 0, 0, 0, 0]))
    np.testing.assert_allclose(laws.coverage(means[jnp.zeros(6, int)], means, law), 0.2, atol=1e-6)
    np.testing.assert_allclose(laws.coverage(means[jnp.asarray([0, 0, 1])], means, law), 0.2 + 1 / 3, atol=1e-6)


def _sweep(solver, dimensions=(16,), **others):
    settings = {"paths": ("linear",), "scales": (1.0, 2.0), "sigmas": (1.0,), "size": Size(64, 16)} | others
    return Sweep(dict.fromkeys(dimensions, solver), **settings)


def _of(names):
    return {name: LADDER[name] for name in names}


@pytest.fixture(scope="module")
def climbed():
    """Two rules in two dimensions, on two paths."""
    sweep = _sweep(("heun",), (2, 16), paths=("linear", "cosine"))
    return climb(_of(("classifier_free", "autoguidance")), sweep)


def _row(result, rule, dimension, scale, path="linear"):
    place = rule, dimension, scale, path
    (row,) = [row for row in result.rows if (row.rule, row.dimension, row.scale, row.path) == place]
    return row


def test_the_weaker_normal_of_autoguidance_narrows_by_its_closed_form(climbed):
    """Its ODE makes the standard deviation s^w v^(1-w); the noise of both w is the same."""
    ratio = _row(climbed, "autoguidance", 16, 2.0).spread / _row(climbed, "autoguidance", 16, 1.0).spread
    np.testing.assert_allclose(ratio, 1 / 1.2, rtol=0.01)


def test_plain_guidance_samples_the_same_in_the_plane_whatever_the_dimension(climbed):
    few, many = (_row(climbed, "classifier_free", dimension, 2.0) for dimension in (2, 16))
    np.testing.assert_allclose([few.to_tilted, few.coverage], [many.to_tilted, many.coverage], atol=1e-4)
    assert (few.spread, abs(many.spread - 1) < 4 / np.sqrt(2 * 64 * 14)) == (1, True)


def test_points_are_what_their_numbers_say(climbed):
    """The path and rule of a point against the same written out, by the measures of its samples."""
    for path in ("linear", "cosine"):
        cell = Cell(Problem(16), PATHS[path](), 0, jnp.float32(2.0))
        x = jax.jit(lambda cell=cell: sample(LADDER["classifier_free"], cell, 64, 16))()
        law = laws.law_of(PLANE, GRID, 2.0)
        row = _row(climbed, "classifier_free", 16, 2.0, path)
        np.testing.assert_allclose(row.to_tilted, metrics.energy_distance(np.asarray(x[:, :2]), law.draws), atol=1e-4)
        np.testing.assert_allclose(row.spread, np.sqrt(np.mean(np.square(x[:, 2:]))) / OTHER_STD, rtol=1e-4)


def test_compilations_do_not_grow_with_rules_paths_and_scales(climbed):
    assert climbed.compilations <= 12
    assert len(climbed.rows) == 16


def test_the_full_ladder_is_all_that_is_asked():
    assert set(FULL.solvers) == {2, 16, 256} and set(samplers.RULES) <= set(LADDER)
    assert set(FULL.paths) == set(PATHS) and len(FULL.scales) >= 5 and len(FULL.sigmas) >= 3


@pytest.mark.parametrize(
    "name", ["classifier_free", "annealed", "adaptive_projected_mix", "cfg_plus_plus", "feynman_kac"]
)
def test_evaluations_are_those_of_the_table_of_rules(name):
    row = LADDER[name]
    solver = OWN if OWN in row.solvers else row.solvers[0]
    assert num_evaluations(row, solver, 8) == 8 * RULES[name].evaluations


def test_evaluations_of_stages_are_counted_by_stage():
    """Of 32 Heun steps 12 lie in the interval, and 4 before zero-init's start; a classifier counts as one."""
    assert num_evaluations(LADDER["interval"], "heun", 32) == 2 * (2 * 12 + 20)
    assert num_evaluations(LADDER["zero_init"], "heun", 32) == 2 * 2 * 28
    assert num_evaluations(LADDER["classifier"], "heun", 32) == 2 * 2 * 32
    assert num_evaluations(ALL["gibbs_like"], OWN, 32) == 2 * FIRST_STEPS + NUM_ROUNDS * 2 * 2 * ROUND_STEPS


def _figures(rule):
    return stored.stored()[rule]


def test_rules_that_are_labelled_at_one_are_so_in_the_stored_figures():
    for path in SMALL.paths:
        place = f"D = 16, {path}, heun, w = 1"
        for name in ALL.keys() & RULES.keys():
            if RULES[name].is_labelled_at_one and place in _figures(name):
                np.testing.assert_allclose(_figures(name)[place], _figures("classifier_free")[place], atol=2e-4)


def test_stored_figures_are_of_every_rule():
    assert stored.stored().keys() == ALL.keys()


def _result(**changes):
    row = Found("plain", "heun", 16, "linear", 2.0, None, 128, 0.0173, 0.0335, 0.91, 1.005)
    settings = {"num_samples": 64, "num_steps": 32, "jax": "1", "date": "2026-01-02", "load": 3.0}
    return Result([Found(**{**vars(row), **changes})], {2.0: 0.002}, 6, 1.0, 2.0, settings)


def test_a_rule_whose_figures_moved_is_named():
    wanted = stored.figures_of(_result().rows)
    assert stored.moved(_result(to_tilted=0.0178), wanted) == []
    (line,) = stored.moved(_result(to_tilted=0.02), wanted)
    assert line == "plain moved: to_tilted is 0.02, was 0.0173 at D = 16, linear, heun, w = 2"
    assert stored.moved(_result(to_tilted=0.0191), wanted, loose=["plain"]) == []
    assert "spread is None, was 1.005" in stored.moved(_result(spread=np.inf), wanted)[0]
    assert stored.moved(_result(rule="new"), wanted) == [
        "new has no stored figures", "plain is stored, and was not laddered",
    ]  # fmt: skip


def test_the_page_has_one_table_and_one_picture(tmp_path):
    result = _result()
    text = page(result, "python -m experiments.ladder", "2 CPU cores", "ladder.png")
    assert "| plain | heun | 128 | 17.3 | 33.5 | 0.91 | 1.005 |" in table(result.rows)
    assert (text.count("|---|"), text.count("![")) == (1, 1)
    assert "Under the floor of the tilted law in every dimension: none." in text
    near = page(_result(to_tilted=0.0019), "python -m experiments.ladder", "2 CPU cores", "ladder.png")
    assert "Under the floor of the tilted law in every dimension: plain (heun)." in near
    assert "| diverges | 33.5 |" in table(_result(to_tilted=np.inf).rows)
    assert "| 0.0 | 33.5 |" in table(_result(to_tilted=-4e-5).rows)
    (left, right) = [axes.images[0].get_array() for axes in picture(result).axes[:2]]
    np.testing.assert_allclose([left[0, 0], right[0, 0]], [0.0173, 0.0335])


def _grown(path, pair, scale):
    return guidance.extrapolate(pair, lambda t: 1 + (scale - 1) * t)


def _with(change):
    return lambda path, pair, scale: lambda x, t, y: change(guidance.extrapolate(pair, scale)(x, t, y), x, t)


@jax.custom_batching.custom_vmap
def _centred(value):
    return value


@_centred.def_vmap
def _centred_over_the_batch(axis_size, in_batched, value):
    return value - jnp.mean(value, axis=0, keepdims=True), True


def _raising(value, x, t):
    raise RuntimeError("no\nluck")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda value, x, t: value[:1], "does not return like x: float32[1] for x float32[2]"),
        (lambda value, x, t: (value, t), "does not return like x: tuple for x float32[2]"),
        (lambda value, x, t: value / t, "is not finite at t = 0, w = 1"),
        (lambda value, x, t: _centred(value), "changes with the batch: by "),
        (_raising, "raises RuntimeError: no luck"),
    ],
)
def test_a_rule_that_cannot_be_laddered_is_named(change, words):
    assert user_rules.trouble(_with(change), (2, 16)).startswith(words)


def test_a_rule_of_the_user_is_laddered_beside_a_broken_one(tmp_path, capsys):
    """Ten lines of the user's are the ladder's own schedule; what divides by zero is left out in one line."""
    own, broken = tmp_path / "growing_rule.py", tmp_path / "broken_rule.py"
    start = "from cfgjax import guidance\n\n\ndef rule(path, pair, scale):\n"
    own.write_text(f"{start}    return guidance.extrapolate(pair, lambda t: 1 + (scale - 1) * t)\n")
    broken.write_text(f"{start}    return lambda x, t, y: x / t\n")
    out, other = tmp_path / "out", tmp_path / "docs" / "rules.md"
    main(["--small", "--only", "schedule", "--rule", str(own), str(broken), "--out", str(out), "--page", str(other)])
    said = capsys.readouterr()
    assert f"rule {broken} is left out: it is not finite at t = 0, w = 1" in said.err
    assert "all figures are the stored ones" in said.out
    rows = json.loads((out / "ladder.json").read_text())["rows"]
    by_rule = {name: [row["to_tilted"] for row in rows if row["rule"] == name] for name in ("schedule", "growing_rule")}
    np.testing.assert_allclose(by_rule["growing_rule"], by_rule["schedule"], atol=1e-6)
    assert {row["rule"] for row in rows} == {"schedule", "growing_rule"}
    assert "| growing_rule | heun | 128 |" in other.read_text() and "](rules.png)" in other.read_text()
    assert (out / "ladder.png").read_bytes() == other.with_suffix(".png").read_bytes()


@pytest.mark.slow
def test_figures_that_moved_end_the_small_form(tmp_path, monkeypatch):
    figures = json.loads(stored.FILE.read_text())
    figures["schedule"]["D = 16, cosine, heun, w = 2"][1] += 0.01
    other = tmp_path / "small.json"
    other.write_text(json.dumps(figures))
    monkeypatch.setattr(stored, "FILE", other)
    with pytest.raises(MovedError, match="1 rules moved"):
        run(Options(tmp_path / "out", small=True, only=("schedule",)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"only": ("cfg",)}, "only must be of classifier_free, .*got cfg"),
        ({"rule": ("absent.py",)}, "rule must be a Python file, got .*absent.py"),
        ({"store": True}, "store must stand beside small alone"),
    ],
)
def test_what_cannot_be_laddered_is_refused(tmp_path, options, words):
    options |= {"rule": tuple(tmp_path / name for name in options.get("rule", ()))}
    with pytest.raises(UserError, match=words):
        run(Options(tmp_path, **options))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rule = 3\n", r"a function rule\(path, pair, scale\), got .*py with int"),
        ("def rul(path, pair, scale): ...\n", r"a function rule\(path, pair, scale\), got .*py with none"),
        ("def rule(:\n", "does not import: SyntaxError"),
        ("1 / 0\n", "does not import: ZeroDivisionError: division by zero"),
        ("import sys\n\nsys.exit(3)\n", "does not import: SystemExit: 3"),
        ("import no_such_module\n", "does not import: ModuleNotFoundError"),
    ],
)
def test_a_file_without_a_rule_is_refused(tmp_path, text, words, request):
    file = tmp_path / f"no_rule_{request.node.callspec.indices['text']}.py"
    file.write_text(text)
    with pytest.raises(UserError, match=words):
        user_rules.load_rule(file)


def test_a_file_of_the_name_of_another_module_is_refused(tmp_path):
    file = tmp_path / "json.py"
    file.write_text("def rule(path, pair, scale): ...\n")
    with pytest.raises(UserError, match=r"rule must have a name that no other module has, got .*json\.py"):
        user_rules.load_rule(file)


@pytest.mark.slow
def test_the_small_form_has_the_stored_figures(tmp_path, capsys):
    main(["--small", "--out", str(tmp_path)])
    assert "all figures are the stored ones" in capsys.readouterr().out


@pytest.mark.slow
def test_every_rule_of_the_type_of_the_commands_is_laddered_by_every_solver():
    """Rules by Euler-Maruyama without noise are Euler's, so that all solvers of a rule are held to one another."""
    sweep = _sweep(("euler", "euler_maruyama"), (2,), sigmas=(0.0,), scales=(2.0,), size=Size(32, 8))
    found = climb({name: of_rule(rule) for name, rule in samplers.RULES.items()}, sweep).rows
    by_solver = [[row.to_tilted for row in found if row.solver == name] for name in ("euler", "euler_maruyama")]
    np.testing.assert_allclose(*by_solver, atol=1e-4)
