"""The doors of checkpoints: a folder, a rule of what is kept, a step, or one clear error before anything is written."""

import contextlib
import tempfile
from pathlib import Path

import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cfgjax import checkpoints
from tests.doors import NAN, Door, Kind, examples, knock

NO_COUNT = (-1, 2.5, NAN, True, "three", 1j, jnp.ones(2, int))
LAST = Kind((None, 1, 2), (0, *NO_COUNT))
EVERY = Kind((None, 1, 100), (0, *NO_COUNT))
BEST = Kind((0, 1, 3), (None, *NO_COUNT))


@contextlib.contextmanager
def _new_folder():
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "checkpoints"


def _open(keep):
    """Opens a new folder; a rule that is refused leaves none behind."""
    with _new_folder() as folder:
        try:
            with checkpoints.Writer(folder, keep):
                pass
        except (TypeError, ValueError):
            assert not folder.exists()
            raise


DOORS = [
    Door(
        "checkpoints.Keep",
        lambda last, every, best: _open(checkpoints.Keep(last, every, best)),
        {"last": LAST, "every": EVERY, "best": BEST},
    ),
]


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
def test_the_answer_is_right_or_the_error_clear(door):
    @given(data=st.data())
    @examples(16)
    def knocks(data):
        knock(door, data)

    knocks()


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (checkpoints.Keep(last=0), "keep.last must be at least 1, got 0"),
        (checkpoints.Keep(last=-1), "keep.last must be at least 1, got -1"),
        (checkpoints.Keep(every=0), "keep.every must be at least 1, got 0"),
        (checkpoints.Keep(best=-1), "keep.best must be at least 0, got -1"),
    ],
)
def test_a_rule_that_would_keep_nothing_is_refused_before_a_folder_is_made(keep, message, tmp_path):
    """Orbax would have removed every checkpoint, the one just written with them."""
    with pytest.raises(ValueError, match=message):
        checkpoints.Writer(tmp_path / "checkpoints", keep)
    assert not (tmp_path / "checkpoints").exists()
