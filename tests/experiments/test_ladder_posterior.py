"""The ladder of methods that steer by a measurement: its truth, its errors, its costs, and the command."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cfgjax import steering
from cfgjax.mixtures import LabelledMixture
from cfgjax.types import Measurement
from experiments.cli.main import UserError
from experiments.ladder_posterior import problems, samplers
from experiments.ladder_posterior.__main__ import Options, climb
from experiments.ladder_posterior.samplers import SAMPLERS, Cost

MIXTURE = problems.ring()
MATRIX = problems.operator(MIXTURE, "ring", 1)


def _case(noise=0.2, scale=1.0):
    return problems.cases(MIXTURE, MATRIX, noise, scale, 1)[0]


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_the_truth_has_the_moments_of_its_density(scale):
    """In 1-D, by the trapezoidal rule: w = 0 is without label."""
    means, variances, value, noise = np.array([-0.5, 1.0]), np.array([0.6, 0.3]), 0.4, 0.7
    mixture = LabelledMixture(jnp.ones(2), jnp.asarray(means)[:, None], jnp.asarray(variances)[:, None, None])
    known = Measurement(steering.operators.matrix(jnp.ones((1, 1))), jnp.asarray([value]), jnp.float32(noise))
    draws = problems.exact_draws(mixture, problems.Case(known, jnp.asarray(1), jnp.float32(scale)), 20_000)[:, 0]
    z = np.linspace(-6, 6, 4001)
    normal = np.exp(-((z[:, None] - means) ** 2) / (2 * variances)) / np.sqrt(variances)
    density = normal[:, 1] ** scale * normal.sum(axis=1) ** (1 - scale) * np.exp(-((z - value) ** 2) / (2 * noise**2))
    density /= density.sum()
    mean = np.sum(z * density)
    variance = np.sum((z - mean) ** 2 * density)
    assert abs(draws.mean() - mean) < 4 * np.sqrt(variance / len(draws))
    assert abs(draws.var() - variance) < 4 * variance * np.sqrt(3 / len(draws))


def test_errors_are_what_was_done_to_the_draws():
    truth = problems.truth_of(MIXTURE, _case(), 200)
    centre, root = truth.draws.mean(axis=0), np.linalg.cholesky(np.cov(truth.draws.T))
    moved = truth.errors(truth.draws + root @ np.array([0.3, -0.4]))
    np.testing.assert_allclose([moved.mean, moved.covariance], [0.5, 0], atol=1e-9)
    spread = truth.errors(centre + 1.5 * (truth.draws - centre))
    np.testing.assert_allclose([spread.mean, spread.covariance], [0, 1.25], atol=1e-9)
    assert moved.energy > truth.floor.energy > truth.errors(truth.draws).energy
    assert truth.errors(np.full((4, 2), np.nan)).energy == np.inf


def test_modes_that_are_left_out_are_seen():
    """With draws of one of two far components alone half of the weight is elsewhere."""
    means = jnp.asarray([[-4.0, 0.0], [4.0, 0.0]])
    mixture = LabelledMixture(jnp.ones(2), means, 0.1 * jnp.stack([jnp.eye(2)] * 2))
    known = Measurement(steering.operators.matrix(jnp.asarray([[0.0, 1.0]])), jnp.zeros(1), jnp.float32(0.5))
    truth = problems.truth_of(mixture, problems.Case(known, jnp.asarray(0), jnp.float32(0.0)), 500)
    right = np.mean(truth.draws[:, 0] > 0)
    one_sided = truth.errors(truth.draws[truth.draws[:, 0] > 0])
    np.testing.assert_allclose(one_sided.modes, 1 - right, atol=1e-6)


def test_costs_are_counted():
    found = {name: samplers.cost_of(MIXTURE, SAMPLERS[name], _case(), 8) for name in ("dps", "diffpir", "tilted")}
    assert found == {"dps": Cost(16, 16), "diffpir": Cost(16, 0), "tilted": Cost(8, 0)}


def test_one_compilation_serves_every_noise_measurement_label_and_scale():
    traces = []

    def build(mixture, field, case):
        traces.append(None)
        return SAMPLERS["diffpir"].build(mixture, field, case)

    run = samplers.compiled(MIXTURE, samplers.Sampler(build), 2, 3)
    cases = [
        case for noise, scale in ((0.05, 0.0), (1.0, 2.0)) for case in problems.cases(MIXTURE, MATRIX, noise, scale, 2)
    ]
    found = [run(case, 0) for case in cases]
    assert len(traces) == 1
    assert len({each.tobytes() for each in found}) == len(cases)


def _rows(folder):
    return {row["method"]: row for row in json.loads((folder / "posterior.json").read_text())}


def test_the_command_writes_rows_a_table_and_a_picture(tmp_path, capsys):
    """The exact posterior's ODE is at the floor, DPS far above it."""
    options = Options(
        tmp_path / "out", noise=(0.2,), scale=(1.0,), num_steps=(16,), num_samples=150, num_measurements=1,
        only=("dps", "exact_ode"),
    )  # fmt: skip
    climb(options)
    rows = _rows(options.out)
    assert list(rows) == ["floor", "dps", "exact_ode"]
    assert rows["exact_ode"]["energy"] < 3 * rows["floor"]["energy"] < rows["dps"]["energy"] / 5
    assert (rows["dps"]["evaluations"], rows["dps"]["products"]) == (32, 32)
    table = (options.out / "posterior.md").read_text()
    assert f"| dps | 16 | 32 | 32 | {rows['dps']['energy']:.4f} (" in table
    assert table.strip() in capsys.readouterr().out
    with Image.open(options.out / "posterior.png") as picture:
        assert min(picture.size) > 200


@pytest.mark.slow
def test_every_method_climbs(tmp_path):
    climb(Options(tmp_path, noise=(1.0,), scale=(2.0,), num_steps=(16,), num_samples=100, num_measurements=1))
    rows = _rows(tmp_path)
    assert rows.keys() == {"floor", *SAMPLERS}
    assert all(row["energy"] is not None for row in rows.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scale", "names"), [(1.0, ("exact_particles", "tilted", "exact_ode")), (2.0, ("exact_particles",))]
)
def test_what_knows_the_posterior_is_at_the_floor(tmp_path, scale, names):
    options = {"noise": (0.2,), "scale": (scale,), "num_steps": (64,), "num_samples": 400, "num_measurements": 1}
    climb(Options(tmp_path, only=names, **options))
    rows = _rows(tmp_path)
    for name in names:
        assert rows[name]["energy"] < 2 * rows["floor"]["energy"], name


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"scale": (0.5,)}, r"scale must be 0, or in 1\.\.5, .*got \(0\.5,\)"),
        ({"noise": (0.0,)}, r"noise must be positive and finite, got \(0\.0,\)"),
        ({"only": ("dsp",)}, "only must be of dps, .*got dsp"),
        ({"num_steps": ()}, "num_steps must be at least 1"),
        ({"num_samples": 1}, "num_samples must be at least 2, got 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, wrong, words):
    with pytest.raises(UserError, match=words):
        climb(Options(tmp_path, **wrong))


def test_ranks_of_the_wide_mixture_share_one_shape():
    wide = problems.wide()
    for rank in (1, 4, 8):
        matrix = np.asarray(problems.operator(wide, "wide", rank))
        assert matrix.shape == (8, 16)
        np.testing.assert_allclose(matrix @ matrix.T, np.diag(np.arange(8) < rank), atol=1e-6)
    case = problems.cases(wide, problems.operator(wide, "wide", 4), 1.0, 1.0, 1)[0]
    assert jax.numpy.count_nonzero(case.measurement.value) == 4
