"""Commands that spare evaluations of the null side: what they draw, print and refuse."""

import jax
import numpy as np
import pytest

from cfgjax import guidance, mixtures, paths
from cfgjax.analysis.residuals import balanced_drop_rate
from experiments import fewer_evaluations
from experiments.cli.main import UserError
from experiments.config import samplers
from experiments.diagnose import drop_rate_advice
from experiments.fewer_evaluations import Options

PATH, FIELD = paths.linear(), mixtures.ring(8).vector_field(paths.linear())
PAIR = guidance.pair(FIELD, 8)
TS = samplers.times(PATH, 8)


def _rule(field=FIELD, period=2, ends=(0.0, 1.0), name="classifier_free"):
    pair = guidance.pair(field, 8)
    return samplers.with_reuse(samplers.by_name(name, PATH, pair, ends), name, PATH, pair, ends, period)


@pytest.mark.parametrize(
    ("period", "ends", "scale", "wanted"),
    [(2, (0.0, 1.0), 2.0, 20), (1, (0.0, 1.0), 2.0, 24), (4, (0.25, 0.75), 2.0, 18), (2, (0.0, 1.0), 1.0, 16)],
)
def test_what_a_sample_costs_is_told(period, ends, scale, wanted):
    def rule_of(placed):
        return _rule(placed(FIELD), period, ends)

    assert samplers.num_evaluations(rule_of, FIELD, PATH, (2,), "heun", TS, scale, 1) == wanted


def test_samples_are_near_those_of_every_evaluation():
    full, spared, far = (
        samplers.make_draw(rule, PATH, (2,), "heun", samplers.times(PATH, 32))
        for rule in (_rule().rule, _rule(), _rule(period=16))
    )
    keys = jax.random.split(jax.random.key(0), 16)
    one, two, three = (
        np.asarray(jax.jit(jax.vmap(lambda key, d=d: d(key, 1, 2.0)))(keys)) for d in (full, spared, far)
    )
    assert 0 < np.max(np.abs(one - two)) < 0.05 < np.max(np.abs(one - three))


def test_reuse_is_of_solvers_that_step_by_the_field():
    with pytest.raises(UserError, match="reuse must be left out for the solver adaptive"):
        samplers.make_draw(_rule(), PATH, (2,), "adaptive", TS)


@pytest.mark.slow
def test_the_command_prints_what_schedules_spare(capsys):
    fewer_evaluations.fewer_evaluations(Options(num_steps=8, num_samples=16, num_rounds=1, tolerance=0.05))
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:]]
    counts = {row[0].split("`")[0].strip(): int(row[1]) for row in rows}
    assert counts["full guidance"] == 32
    assert (counts["each 1. step"], counts["each 2. step"]) == (24, 20)
    assert counts["solved"] <= 24
    assert float(rows[-1][3].split("±")[0]) <= 0.05


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"order": 3}, "order must be 0, 1 or 2, got 3"),
        ({"tolerance": 0.0}, "tolerance must be positive"),
        ({"num_steps": 1}, "num_steps must be at least 2, got 1"),
        ({"scale": np.inf}, "scale must be finite"),
        ({"run_dir": "runs/digits", "network": "DiT-Ti"}, "network must be left out where a run is given"),
    ],
)
def test_options_out_of_range_are_named(change, message):
    with pytest.raises(UserError, match=message):
        fewer_evaluations.fewer_evaluations(Options(**change))


@pytest.mark.parametrize(("scale", "ratio"), [(2.0, 1.0), (1.5, 4.0), (5.0, 0.3), (-1.0, 1.0)])
def test_the_balanced_drop_rate_is_where_the_guided_error_is_least(scale, ratio):
    rates = np.linspace(1e-4, 1 - 1e-4, 200_001)
    errors = scale**2 / (1 - rates) + ratio * (scale - 1) ** 2 / rates
    assert float(balanced_drop_rate(scale, ratio)) == pytest.approx(rates[np.argmin(errors)], abs=1e-4)
    assert (float(balanced_drop_rate(1.0)), float(balanced_drop_rate(0.0))) == (0, 1)


def test_advice_is_given_where_the_drop_rate_is_off():
    assert drop_rate_advice(0.1, 1.0) is None and drop_rate_advice(0.3, 2.0) is None
    assert "0.33" in drop_rate_advice(0.1, 2.0)
