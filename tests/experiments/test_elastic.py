"""A run that goes on with other numbers of hosts and devices, on hosts that are processes, ends as if it had not."""

import itertools

import numpy as np
import pytest

from experiments.fault_injection import differences, elastic
from experiments.fault_injection.elastic import ALL_PLACES, HOSTS, MOST, Elastic, Place

TWO_BY_TWO, ONE_BY_FOUR, FOUR_BY_ONE, ONE = HOSTS


def test_the_walk_goes_once_from_every_place_to_every_other_one():
    """Four numbers of hosts and devices with two placements: eight places, from each to the seven others."""
    walk = elastic.every_move(ALL_PLACES)
    moves = list(itertools.pairwise(walk))
    assert len(set(moves)) == len(moves) == 8 * 7
    assert all(start != end for start, end in moves)
    assert (Place(ONE, "sharded"), Place(FOUR_BY_ONE, "replicated")) in moves


@pytest.mark.parametrize(
    ("found", "expected", "apart"),
    [
        ([1.0, -4.0], [1.0, -4.0], 0.0),
        ([1.1, -4.0], [1.0, -4.0], 0.1 / 4),
        ([0.0, 0.5], [0.0, 0.0], 0.5),
        ([1.0], [1.0, 1.0], np.inf),
        ([np.nan, 1.0], [1.0, 1.0], np.inf),
    ],
)
def test_arrays_are_compared_by_their_largest_number(found, expected, apart):
    np.testing.assert_allclose(differences.apart(np.array(found), np.array(expected)), apart, rtol=1e-12)


@pytest.mark.slow
def test_a_run_that_is_moved_is_where_one_that_is_not_is(tmp_path):
    """Losses, the state on every device, snapshots of EMAs and the report, after SGD, which forgives no difference."""
    walk = [
        Place(TWO_BY_TWO, "replicated"),
        Place(ONE_BY_FOUR, "sharded"),
        Place(TWO_BY_TWO, "sharded"),
        Place(ONE, "replicated"),
    ]
    runs = Elastic(tmp_path / "runs", walk)
    moves = list(runs.moves())
    assert [move.step for move in moves] == [elastic.STEPS * (index + 1) for index in range(len(walk))]
    assert max(move.largest for move in moves) < MOST
    assert runs.reports_apart() < MOST
