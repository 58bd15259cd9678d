"""Errors by drop rate: what is measured in closed form, what training changes, and what the command prints."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance
from cfgjax.analysis.residuals import balanced_drop_rate
from experiments.cli.main import UserError
from experiments.drop_rates import __main__ as command
from experiments.drop_rates.errors import EXACT, NULL, PATH, RING, Errors, errors, points
from experiments.drop_rates.held_out import runs_table, side_losses
from experiments.drop_rates.tables import error_ratio, errors_table, rates_table
from experiments.drop_rates.training import Training, study
from experiments.presets.registry import PRESETS
from experiments.tasks.registry import task_of

SCALES = (0.0, 1.0, 2.5)
LABELLED, NULL_SIDE = jnp.array([0.3, -0.1]), jnp.array([0.2, 0.4])
KEYS = jax.random.split(jax.random.key(0), 2)


def _off(labelled, null):
    """The exact field, off by a constant on each side."""
    exact = RING.vector_field(PATH)
    return lambda x, t, y: exact(x, t, y) + jnp.where(y == NULL, null, labelled)


def test_errors_of_constants_are_their_squares():
    pair = guidance.pair(_off(LABELLED, NULL_SIDE), NULL)
    found = errors(pair, EXACT, *points(KEYS[0], 64), jnp.array(SCALES))
    assert float(found.labelled) == pytest.approx(0.1, rel=1e-4)
    assert float(found.null) == pytest.approx(0.2, rel=1e-4)
    assert float(found.correlation) == pytest.approx(0.02 / np.sqrt(0.02), rel=1e-3)
    guided = [jnp.sum(jnp.square(w * LABELLED - (w - 1) * NULL_SIDE)) for w in SCALES]
    np.testing.assert_allclose(found.guided, guided, rtol=1e-4)


def test_the_field_0_has_the_whole_field_as_its_error():
    """E |u_y|^2 of a Gaussian about a point at distance 2, over t and x of p_t, by its closed form."""
    zero = guidance.pair(lambda x, t, y: jnp.zeros_like(x), NULL)
    found = errors(zero, EXACT, *points(KEYS[0], 40_000), jnp.array(SCALES))
    t, variance = np.linspace(0, 1, 10_001), 0.4**2
    squares = 4 + 2 * (t * variance - (1 - t)) ** 2 / (t**2 * variance + (1 - t) ** 2)
    np.testing.assert_allclose(found.labelled, np.trapezoid(squares, t), rtol=0.01)
    np.testing.assert_allclose(found.guided[:2], [found.null, found.labelled], rtol=1e-5)


def test_consistency_trains_the_null_side_where_nothing_is_dropped():
    program = study(Training(num_updates=150, batch_size=64, width=16, learning_rate=1e-2), 2_000, SCALES)
    without, within = (program(KEYS, jnp.float32(0), jnp.float32(weight)) for weight in (0, 1))
    assert np.all(within.null < 0.5 * without.null)


def _known(ratio):
    """The rows of errors 1 / (1 - p) and r / p of sides that do not go together, and one beside null_consistency."""
    found = {}
    for rate in (0.1, 0.333, 0.5):
        labelled, null = 1 / (1 - rate), ratio / rate
        guided = [w**2 * labelled + (w - 1) ** 2 * null for w in SCALES]
        found[rate, 0.0] = jax.tree.map(lambda value: jnp.array([value]), Errors(labelled, null, 0.0, guided))
        found[rate, 0.0] = found[rate, 0.0]._replace(guided=jnp.array([guided]))
    return found | {(0.0, 2.0): found[0.1, 0.0]}


@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_the_balance_is_found_again(ratio):
    found = _known(ratio)
    assert error_ratio(found) == pytest.approx(ratio, rel=1e-5)
    *_, row = rates_table(found, SCALES).splitlines()
    least, other, plain, balanced = (float(cell) for cell in row.split("|")[2:-1])
    assert (least, other) == (0.333 if ratio == 1 else 0.5, 0)
    assert plain == pytest.approx(float(balanced_drop_rate(2.5)), abs=6e-3)
    assert balanced == pytest.approx(float(balanced_drop_rate(2.5, ratio)), abs=6e-3)
    cells = errors_table(found, SCALES).splitlines()[3].split("|")[1:-1]
    assert [cell.strip() for cell in cells[:2]] == ["0", "0.333"]
    value, apart = cells[-1].split("±")[0], cells[-1].split("(")[1].rstrip(") ")
    assert float(value) == float(apart)


def _run(null):
    experiment = PRESETS["mixture"][1]
    return SimpleNamespace(experiment=experiment, task=task_of(experiment), path=PATH, field=_off(jnp.zeros(2), null))


def test_held_out_losses_differ_by_the_errors_of_a_side():
    """By the mean square over both coordinates of an offset, of the same draws; the other side by nothing."""
    exact, off = (side_losses(_run(null), 20_000) for null in (jnp.zeros(2), NULL_SIDE))
    np.testing.assert_array_equal(off[0], exact[0])
    gap = off[1] - exact[1]
    assert abs(gap.mean() - 0.1) < 4 * gap.std() / np.sqrt(len(gap)) < 0.03
    rows = runs_table([_run(jnp.zeros(2)), _run(NULL_SIDE)], 20_000, (1.0, 3.0)).splitlines()[2:]
    first, second = ([cell.strip() for cell in row.split("|")[5:7]] for row in rows)
    assert first == ["+0.0000 ± 0.0000"] * 2
    assert second[0] == first[0]
    assert float(second[1].split("±")[0]) == pytest.approx(4 * gap.mean(), abs=1e-4)


def test_runs_of_other_data_are_refused():
    other = _run(jnp.zeros(2))
    other.task = SimpleNamespace(**(vars(other.task) | {"test_digest": "other", "labels": (0,), "conditions": None}))
    with pytest.raises(UserError, match="run_dirs must be of the same data on the same path"):
        runs_table([_run(jnp.zeros(2)), other], 4, (2.0,))


def test_the_command_prints_a_row_for_each_rate_and_weight(capsys):
    short = ("--num-updates", "2", "--batch-size", "4", "--width", "4", "--num-points", "16", "--num-seeds", "1")
    command.main(["--rates", "0", "0.2", "--weights", "3", "--scales", "2", *short])
    first, second = capsys.readouterr().out.split("\n\n")
    rows = [[cell.strip() for cell in line.split("|")[1:3]] for line in first.splitlines()[2:]]
    assert rows == [["3", "0"], ["3", "0.2"]]
    assert second.splitlines()[2].split("|")[1].strip() == "2"


def test_nothing_is_trained_where_the_null_side_would_not_be():
    rows = command._rows(command.Options(rates=(0.0, 0.2), weights=(0.0, 1.0)))
    assert rows == [(0.2, 0.0), (0.0, 1.0), (0.2, 1.0)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rates": (1.0,)}, r"rates must be in 0\.\.1"),
        ({"weights": (-1.0,)}, "weights must be finite and not negative"),
        ({"scales": (np.inf,)}, "scales must be finite"),
        ({"rates": (0.0,)}, "weights must not hold 0"),
        ({"num_updates": 0}, "num_updates must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
    ],
)
def test_options_out_of_range_are_named(change, message):
    with pytest.raises(UserError, match=message):
        command.drop_rates(command.Options(**change))
