"""Corrupt checkpoints: every file removed, cut, or with a flipped bit gives the right state or the one before it."""

import gc
import importlib
import random
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cfgjax import checkpoints, training
from cfgjax.checkpoints import parameters as checkpoints_parameters
from cfgjax.checkpoints import save as checkpoints_save
from experiments.runtime.signals import StoppedError

checkpoints_restore = importlib.import_module("cfgjax.checkpoints.restore")

OPTIMIZER = optax.adam(1e-3)
METADATA = {"preset": "ring"}
FLIPS = 6
"""Flipped bits tried in each file."""


def _state(step):
    params = {"kernel": jax.random.normal(jax.random.key(step), (4, 3)), "half": jnp.ones(3, jnp.bfloat16)}
    return training.init_state(params, OPTIMIZER, jax.random.key(7))._replace(step=jnp.int32(step))


def _numbers(state):
    return [
        np.asarray(jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)
        for leaf in jax.tree.leaves(state)
    ]


def _write(folder, *steps):
    with checkpoints.Writer(folder) as writer:
        for step in steps:
            writer.save(step, _state(step), METADATA)


def _mutations(content, seed):
    """Contents of a corrupt file; None is a removed one."""
    rng = random.Random(seed)
    yield None
    yield b""
    yield content[: len(content) // 2]
    for place in sorted(rng.sample(range(len(content)), min(FLIPS, len(content)))):
        flipped = bytes([content[place] ^ (1 << rng.randrange(8))])
        yield content[:place] + flipped + content[place + 1 :]


def _put(file, content):
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)


@pytest.fixture
def _late_callbacks():
    """Waits for the reads that Orbax leaves behind when one of them fails; each then finds its event loop closed."""
    yield
    time.sleep(0.2)
    gc.collect()


@pytest.mark.slow
@pytest.mark.usefixtures("_late_callbacks")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_damage_of_any_file_gives_the_right_state_or_the_one_before(tmp_path):
    _write(tmp_path, 1, 2)
    expected = {step: _numbers(_state(step)) for step in (1, 2)}
    files = sorted(file for file in (tmp_path / "2").rglob("*") if file.is_file())
    fell_back = set()
    for index, file in enumerate(files):
        content = file.read_bytes()
        for mutation in _mutations(content, seed=index):
            _put(file, mutation)
            found = checkpoints.restore(tmp_path, _state(0))
            for ours, its in zip(expected[found.step], _numbers(found.state), strict=True):
                np.testing.assert_array_equal(ours, its)
            assert found.metadata == METADATA
            assert set(found.corrupt) == ({2} if found.step == 1 else set())
            fell_back |= {file.name} if found.step == 1 else set()
            file.write_bytes(content)
    assert {"metadata", "_METADATA", "manifest.ocdbt"} <= fell_back


@pytest.mark.usefixtures("_late_callbacks")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_where_none_is_whole_the_newest_is_named(tmp_path):
    _write(tmp_path, 1, 2)
    for file in tmp_path.rglob("_METADATA"):
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(checkpoints.CheckpointError, match="is unreadable") as caught:
        checkpoints.restore(tmp_path, _state(0))
    assert str(tmp_path / "2") in str(caught.value)


def test_a_changed_number_of_the_parameters_is_found_where_they_are_read_alone(tmp_path, monkeypatch):
    _write(tmp_path, 1, 2)
    read_each = checkpoints_save.read_each

    def with_a_flipped_bit(folder, only):
        found = dict(read_each(folder, only))
        assert found.keys() == {"ema.kernel", "ema.half"}
        if folder.parent.name == "2":
            found["ema.kernel"] = found["ema.kernel"].copy()
            found["ema.kernel"].view(np.uint32)[1, 1] ^= 4
        return found.items()

    monkeypatch.setattr(checkpoints_parameters, "read_each", with_a_flipped_bit)
    found = checkpoints.restore_params(tmp_path)
    assert (found.step, list(found.corrupt)) == (1, [2])
    np.testing.assert_array_equal(found.state["kernel"], _state(1).ema["kernel"])
    with pytest.raises(checkpoints.CheckpointError, match="2 is corrupt: ema/kernel is not what was written"):
        checkpoints.restore_params(tmp_path, 2)


def test_a_number_changed_on_its_way_to_the_disk_is_never_published(tmp_path, monkeypatch):
    """What is written is read back before it takes a name or the place of an older one."""
    _write(tmp_path, 1, 2)
    read_each = checkpoints_save.read_each

    def with_a_flipped_bit(folder):
        found = dict(read_each(folder))
        kernel = found["params.kernel"].copy()
        kernel.view(np.uint32)[1, 1] ^= 4
        return (found | {"params.kernel": kernel}).items()

    monkeypatch.setattr(checkpoints_save, "read_each", with_a_flipped_bit)
    with pytest.raises(checkpoints.CheckpointError, match="params/kernel does not read back"):
        _write(tmp_path, 3)
    assert checkpoints.all_steps(tmp_path) == [2, 1]
    monkeypatch.undo()
    _write(tmp_path, 3)
    assert checkpoints.all_steps(tmp_path) == [3, 2]


def test_a_failed_save_is_told_once_and_the_next_one_works(tmp_path, monkeypatch):
    with checkpoints.Writer(tmp_path) as writer:
        writer.save(1, _state(1), METADATA)
        writer.wait()
        monkeypatch.setattr(checkpoints_save, "read_each", lambda folder: [])
        writer.save(2, _state(2), METADATA)
        with pytest.raises(checkpoints.CheckpointError, match="2 was not written"):
            writer.wait()
        monkeypatch.undo()
        writer.wait()
        writer.save(3, _state(3), METADATA)
    assert checkpoints.all_steps(tmp_path) == [3, 1]
    assert not list(tmp_path.glob("*tmp*"))


def test_corrupt_ones_are_quarantined_and_their_step_is_free_again(tmp_path):
    _write(tmp_path / "checkpoints", 1, 2)
    (tmp_path / "checkpoints" / "2" / "metadata" / "metadata").write_text("{}")
    for time_again in range(2):
        found = checkpoints.restore(tmp_path / "checkpoints", _state(0))
        assert "no digest" in found.corrupt[2]
        checkpoints.quarantine(tmp_path / "checkpoints", found.corrupt, tmp_path / "corrupt")
        assert (tmp_path / "corrupt" / f"2-{time_again}" / "metadata" / "metadata").read_text() == "{}"
        _write(tmp_path / "checkpoints", 2)
        (tmp_path / "checkpoints" / "2" / "metadata" / "metadata").write_text("{}")


@pytest.mark.parametrize(
    ("keep", "left"),
    [
        (checkpoints.RetentionPolicy(last=1), [6]),
        (checkpoints.RetentionPolicy(last=2, every=3), [6, 5, 3]),
        (checkpoints.RetentionPolicy(last=1, best=2), [6, 4, 2]),
        (checkpoints.RetentionPolicy(last=1, every=4, best=1), [6, 4, 2]),
    ],
)
def test_what_is_kept(keep, left, tmp_path):
    """The last, every k-th, and those of least held-out loss: 2, then 4."""
    with checkpoints.Writer(tmp_path, keep) as writer:
        for step, loss in enumerate([0.9, 0.1, 0.5, 0.2, 0.8, 0.7], start=1):
            writer.save(step, _state(step), METADATA, loss)
    assert checkpoints.all_steps(tmp_path) == left


def test_the_best_stay_when_the_folder_is_opened_again(tmp_path):
    keep = checkpoints.RetentionPolicy(last=1, best=1)
    for step, loss in ((1, 0.3), (2, 0.1), (3, 0.2), (4, 0.4)):
        with checkpoints.Writer(tmp_path, keep) as writer:
            writer.save(step, _state(step), METADATA, loss)
    assert checkpoints.all_steps(tmp_path) == [4, 2]


def test_metadata_changed_by_hand_are_refused(tmp_path):
    _write(tmp_path, 1)
    file = tmp_path / "1" / "metadata" / "metadata"
    file.write_text(file.read_text().replace("ring", "king"))
    with pytest.raises(checkpoints.CheckpointError, match="metadata are not those that were written"):
        checkpoints.restore(tmp_path, _state(0))


def test_what_the_system_does_not_let_be_read_is_not_taken_for_damage(tmp_path, monkeypatch):
    """Nothing is known of it, so the one before must not take its place."""
    _write(tmp_path, 1, 2)

    def refused(*arguments):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(checkpoints_restore, "_read", refused)
    with pytest.raises(checkpoints.UnreachableError, match="2 cannot be read: Too many open files"):
        checkpoints.restore(tmp_path, _state(0))


def test_a_request_to_stop_during_a_restore_damages_nothing(tmp_path, monkeypatch):
    _write(tmp_path, 1, 2)

    def asked(*arguments):
        raise StoppedError

    monkeypatch.setattr(checkpoints_restore, "_read", asked)
    with pytest.raises(StoppedError):
        checkpoints.restore(tmp_path, _state(0))


def test_names_with_dots_read_back(tmp_path):
    params = {"layer.1": {"w": jnp.ones(3)}, "layer": {"b": jnp.zeros(2)}}
    state = training.init_state(params, OPTIMIZER, jax.random.key(0))
    with checkpoints.Writer(tmp_path) as writer:
        writer.save(1, state, METADATA)
    assert checkpoints.all_steps(tmp_path) == [1]


def test_saving_again_and_again_keeps_nothing(tmp_path):
    """Orbax's own readers would keep 150 objects of each checkpoint of this size for ever."""
    with checkpoints.Writer(tmp_path) as writer:
        counts = []
        for step in range(16):
            writer.save(step, _state(step), METADATA)
            writer.wait()
            if step in (5, 15):
                gc.collect()
                counts.append(len(gc.get_objects()))
    assert counts[1] - counts[0] < 10 * 60
