"""Guidance among many classes: the fields in chunks against the oracle, the limit's closed forms, and the command."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cfgjax import guidance, paths
from cfgjax.mixtures import LabelledMixture
from experiments.cli.main import UserError
from experiments.many_classes.__main__ import Options, rows_of, study
from experiments.many_classes.families import EXPONENTS, sizes
from experiments.many_classes.figure import draw
from experiments.many_classes.limit import limit
from experiments.many_classes.measures import measure
from experiments.many_classes.mixture import chunked, pair, random_classes
from tests.support import guided_normal

NUM_CLASSES, RANK, DIMENSION, STD = 7, 2, 4, 0.6
KEY = jax.random.key(0)


def _centres():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(DIMENSION, RANK)))[0]
    return rng.normal(size=(NUM_CLASSES, RANK)), basis


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("size", [1, 3, 100])
def test_both_sides_are_the_oracle_s(plain_or_steep_path, size):
    """In two of four directions, with the last chunk filled up or not: at both ends of time, too."""
    centres, basis = _centres()
    covariances = jnp.broadcast_to(STD**2 * jnp.eye(DIMENSION), (NUM_CLASSES, DIMENSION, DIMENSION))
    oracle = LabelledMixture(jnp.ones(NUM_CLASSES), jnp.asarray(centres @ basis.T), covariances)
    exact = guidance.pair(oracle.vector_field(plain_or_steep_path), NUM_CLASSES)
    ours = pair(plain_or_steep_path, chunked(jnp.asarray(centres), STD, jnp.asarray(basis), size))
    states = 2 * jax.random.normal(KEY, (5, DIMENSION))
    of_all = jax.jit(lambda t: jax.vmap(lambda x: [each.both(x, t, jnp.asarray(4)) for each in (ours, exact)])(states))
    for t in (0.0, 0.1, 0.5, 0.95, 1.0):
        found, expected = of_all(jnp.asarray(t))
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)


def test_all_directions_need_no_basis():
    centres = jax.random.normal(KEY, (5, 3))
    x, t, y = jnp.array([0.3, -1.0, 0.7]), jnp.float32(0.4), jnp.asarray(2)
    plain, rotated = (
        pair(paths.linear(), chunked(centres, STD, basis, 2)).both(x, t, y) for basis in (None, jnp.eye(3))
    )
    np.testing.assert_allclose(plain, rotated, rtol=1e-6)


def test_where_no_class_stands_out_the_limit_is_two_gaussians():
    """Null N(0, 2) and label N(1, 1) of a centre at 1, by their closed form."""
    for scale in (0.0, 1.0, 2.0, 3.5):
        found = limit(paths.linear(), scale, exponent=5.0, std=1.0)
        mean, variance = guided_normal._moments(paths.linear(), jnp.float32(1), scale)
        np.testing.assert_allclose(found, (mean, variance, 1.0), rtol=1e-4)


@pytest.mark.parametrize("exponent", [0.01, 0.1, 0.4])
def test_the_limit_near_the_labelled_law(exponent):
    """At w = 1 it is the class's own, and the class stands out where a = log(V_0 / V_y) / 2; d log V / dw = -2 a."""
    std, change = 0.5, 1e-3
    exact = limit(paths.linear(), 1.0, exponent, std)
    assert exact[:2] == pytest.approx((1.0, 1.0), abs=1e-6)
    own = exact.time**2 * std**2 + (1 - exact.time) ** 2
    assert 0.5 * np.log1p(exact.time**2 / own) == pytest.approx(exponent, abs=2e-3)
    near = limit(paths.linear(), 1 + change, exponent, std)
    assert np.log(near.variance_ratio) / change == pytest.approx(-2 * exponent, abs=0.005)


def test_without_exponentially_many_classes_nothing_is_distorted():
    """The smaller a, the nearer to 1 are both numbers, and so is the time to noise."""
    found = np.array([limit(paths.linear(), 3.0, exponent, 0.5) for exponent in (0.4, 0.1, 1e-2, 1e-3, 1e-5)])
    assert np.all(np.diff(found[:, 0]) < 0) and np.all(np.diff(found[:, 1]) > 0) and np.all(np.diff(found[:, 2]) < 0)
    np.testing.assert_allclose(found[-1, :2], 1, atol=5e-3)


def test_samples_follow_the_limit():
    """K = exp(0.2 d): near it, and far from the class's own; as many classes in 40 times as many: hardly."""
    number, short, long = 100, 23, 920
    for dimension, is_distorted in ((short, True), (long, False)):
        mixture = random_classes(KEY, number, dimension, dimension, 0.5)
        found = measure(mixture, 3.0, KEY, 32, 16_000 // dimension)
        expected = limit(paths.linear(), 3.0, np.log(number) / dimension, 0.5)
        assert found.overlap == pytest.approx(expected.overlap, abs=0.02 + 4 * found.overlap_error)
        assert found.variance_ratio == pytest.approx(expected.variance_ratio, abs=0.02 + 4 * found.variance_error)
        assert (found.divergence > 0.1, found.divergence < 0.01) == (is_distorted, not is_distorted)


def test_a_single_class_is_its_own_law():
    """In 3 of 6 directions, at w = 4: the null side is the labelled one."""
    found = measure(random_classes(KEY, 1, 3, 6, 0.5), 4.0, KEY, 32, 4000)
    assert abs(found.overlap - 1) < 4 * found.overlap_error + 1e-3
    assert abs(found.variance_ratio - 1) < 4 * found.variance_error + 2e-3


def test_sizes_keep_their_exponent():
    found = sizes(100_000, 10_000)
    assert max(size.num_classes for size in found) == 100_000 and max(size.dimension for size in found) == 10_000
    for exponent in EXPONENTS:
        own = [size.exponent for size in found if size.family == f"K = exp({exponent:g} d)"]
        np.testing.assert_allclose(own, exponent, rtol=0.05)
        assert len(own) == 5
    assert all(size.num_classes <= 100 and size.dimension <= 50 for size in sizes(100, 50))


@pytest.mark.slow
def test_the_command_writes_rows_a_table_and_a_picture(tmp_path, capsys):
    """At w = 1 no row is off by more than its errors; at w = 3 all are."""
    study(Options(tmp_path / "out", max_classes=100, max_dimension=50))
    rows = json.loads((tmp_path / "out" / "many_classes.json").read_text())
    assert len(rows) == 2 * len(sizes(100, 50))
    for row in rows:
        distance = abs(row["overlap"] - 1)
        assert (distance < 5 * row["overlap_error"]) if row["scale"] == 1 else distance > 20 * row["overlap_error"]
    assert (tmp_path / "out" / "many_classes.md").read_text().strip() in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "many_classes.png") as picture:
        assert min(picture.size) > 500


def test_a_mixture_is_the_same_whatever_others_are_asked_for():
    """Its limit's line has the colour of its points, too."""
    few, more = (
        {row.size: row for row in rows_of(Options(scales=(3.0,), max_classes=10, max_dimension=most, num_steps=1))}
        for most in (10, 12)
    )
    assert len(few) == 2 and {size: more[size] for size in few} == few
    left = draw(list(few.values()), 3.0, 0.5).axes[0]
    (level,) = [line for line in left.lines if line.get_linestyle() == ":"]
    (points,) = [each for each in left.containers if each.get_label() == "K = exp(0.4 d)"]
    assert level.get_color() == points.lines[0].get_color()
    np.testing.assert_allclose(level.get_ydata(), limit(paths.linear(), 3.0, 0.4, 0.5).overlap)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"max_classes": 5}, "max_classes must be at least 10, got 5"),
        ({"max_dimension": 0}, "max_dimension must be at least 10, got 0"),
        ({"scales": ()}, r"scales must be in 0\.\.100, got \(\)"),
        ({"scales": (1.0, float("nan"))}, r"scales must be in 0\.\.100, got"),
        ({"std": 0.0}, r"std must be positive and finite, got 0\.0"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_sampled_is_refused(tmp_path, wrong, words):
    with pytest.raises(UserError, match=words):
        study(Options(tmp_path, **wrong))
