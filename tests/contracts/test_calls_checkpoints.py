"""Calls of checkpoints: a folder, a rule of what is kept, a step, or one clear error before anything is written."""

import atexit
import shutil
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import checkpoints
from tests.support.calls import NAN, Case, Choices, fuzz

NO_COUNT = (-1, 2.5, NAN, True, "three", 1j, jnp.ones(2, int))
LAST = Choices((None, 1, 2), (0, *NO_COUNT))
EVERY = Choices((None, 1, 100), (0, *NO_COUNT))
BEST = Choices((0, 1, 3), (None, *NO_COUNT))


ROOT = Path(tempfile.mkdtemp(prefix="calls"))
atexit.register(shutil.rmtree, ROOT, ignore_errors=True)


def _new_folder():
    """One that is not there yet; it stays to the end, as Orbax looks into it in the background."""
    return Path(tempfile.mkdtemp(dir=ROOT)) / "checkpoints"


def _open(keep):
    """Opens a new folder; a rule that is refused leaves none behind."""
    folder = _new_folder()
    try:
        with checkpoints.Writer(folder, keep):
            pass
    except (TypeError, ValueError):
        assert not folder.exists()
        raise


STATE = {"a": jnp.arange(3.0), "key": jax.random.key(1)}
FOLDER, PARAMS = _new_folder(), _new_folder()
AVERAGES = ({"w": jnp.arange(3.0)},)
NO_PLACE = (None, 3, 1.5, b"folder", ["folder"], object())
PLACES = Choices((FOLDER, str(FOLDER)), NO_PLACE)
NO_TREE = ("three", {"a": object()}, [None, "b"], np.array(["a"]))
STEP = Choices((3, np.int64(3)), (*NO_COUNT, [3]))


def _save(step, tree, metadata, held_out_loss):
    """Saves into a new folder, whose writer can save again after what was refused."""
    folder = _new_folder()
    with checkpoints.Writer(folder) as writer:
        try:
            writer.save(step, tree, metadata, held_out_loss)
        except (TypeError, ValueError):
            writer.save(1, STATE, {})
            writer.wait()
            assert checkpoints.all_steps(folder) == [1]
            raise


CASES = [
    Case("checkpoints.latest_step", checkpoints.latest_step, {"folder": PLACES}, lambda folder: 3),
    Case(
        "checkpoints.restore",
        lambda folder, like, step: checkpoints.restore(folder, like, step).state["a"],
        {"folder": PLACES, "like": Choices((STATE,), NO_TREE), "step": STEP.but(allowed=(None,))},
        lambda folder, like, step: np.arange(3.0),
    ),
    Case(
        "checkpoints.restore_params",
        lambda folder, step, which, like: checkpoints.restore_params(folder, step, which, like).state["w"],
        {
            "folder": Choices((PARAMS,), NO_PLACE),
            "step": STEP.but(allowed=(None,)),
            "which": Choices(("ema", "params", 0), ("averages", "", None, -1, 1.5, True, ["ema"])),
            "like": Choices((None, {"w": jnp.ones(3)}), NO_TREE),
        },
        lambda folder, step, which, like: np.arange(3.0),
    ),
    Case(
        "checkpoints.Writer",
        lambda folder, keep: checkpoints.Writer(folder, keep).__exit__(None, None, None),
        {
            "folder": PLACES,
            "keep": Choices(
                (checkpoints.RetentionPolicy(),), (None, 2, (2, None, 0), "last", checkpoints.RetentionPolicy)
            ),
        },
    ),
    Case(
        "checkpoints.Writer.save",
        _save,
        {
            "step": Choices((0, 3, np.int64(5)), NO_COUNT),
            "tree": Choices((STATE, {"n": 3, "half": jnp.ones(2, jnp.bfloat16)}), NO_TREE),
            "metadata": Choices(
                ({}, {"a": [1, None]}), (None, 3, "ring", [("a", 1)], {"a": object()}, {"a": jnp.ones(2)})
            ),
            "held_out_loss": Choices((None, 0.5, np.float32(2)), ("low", 1j, [0.5], np.ones(1))),
        },
    ),
    Case(
        "checkpoints.host_checksum",
        lambda leaf: int(checkpoints.host_checksum(leaf), 16),
        {
            "leaf": Choices(
                (np.ones(2, np.float32), np.ones((2, 3), np.int32), np.ones(2, np.int8)),
                (None, "three", jax.random.key(0), [1, 2], np.array(["a"])),
            )
        },
        lambda leaf: int(checkpoints.checksums({"": jnp.asarray(leaf)})[""], 16),
    ),
    Case(
        "checkpoints.RetentionPolicy",
        lambda last, every, best: _open(checkpoints.RetentionPolicy(last, every, best)),
        {"last": LAST, "every": EVERY, "best": BEST},
    ),
]


@pytest.fixture(scope="module", autouse=True)
def _saved():
    with checkpoints.Writer(FOLDER) as writer:
        writer.save(3, STATE, {"name": "ring"})
    with checkpoints.Writer(PARAMS) as writer:
        writer.save(3, {name: {"w": jnp.arange(3.0)} for name in ("ema", "params")} | {"averages": AVERAGES}, {})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer_is_right_or_the_error_clear(case):
    fuzz(case)


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (checkpoints.RetentionPolicy(last=0), "keep.last must be at least 1, got 0"),
        (checkpoints.RetentionPolicy(last=-1), "keep.last must be at least 1, got -1"),
        (checkpoints.RetentionPolicy(every=0), "keep.every must be at least 1, got 0"),
        (checkpoints.RetentionPolicy(best=-1), "keep.best must be at least 0, got -1"),
    ],
)
def test_a_rule_that_would_keep_nothing_is_refused_before_a_folder_is_made(keep, message, tmp_path):
    """Orbax would have removed every checkpoint, the one just written with them."""
    with pytest.raises(ValueError, match=message):
        checkpoints.Writer(tmp_path / "checkpoints", keep)
    assert not (tmp_path / "checkpoints").exists()
