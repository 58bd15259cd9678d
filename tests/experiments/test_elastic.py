"""Runs that go on elsewhere, on hosts that are processes: other numbers of them and of devices, other placements."""

import pytest

from experiments.fault_injection import elastic
from experiments.fault_injection.elastic import HOSTS, MOST, Elastic, Place

TWO_BY_TWO, ONE_BY_FOUR, FOUR_BY_ONE, ONE = HOSTS


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of the mixture by SGD, and one that never moved."""
    return Elastic(tmp_path_factory.mktemp("elastic") / "runs")


def test_every_pair_of_places_is_among_the_moves():
    """Four numbers of hosts and devices with two placements: eight places, each to the seven others."""
    moves = list(elastic.pairs())
    assert len(set(moves)) == len(moves) == 8 * 7
    assert all(start != end for start, end in moves)
    assert (Place(ONE, "sharded"), Place(FOUR_BY_ONE, "replicated")) in moves


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "end"),
    [
        (Place(TWO_BY_TWO, "replicated"), Place(ONE_BY_FOUR, "sharded")),
        (Place(ONE_BY_FOUR, "sharded"), Place(TWO_BY_TWO, "sharded")),
    ],
)
def test_a_run_that_is_moved_ends_as_one_that_is_not(start, end, runs):
    """Losses, the state on every device, snapshots of EMAs and the report, after SGD, which forgives no difference."""
    assert runs.moved(start, end).largest < MOST
