"""From a run's folder to its field: one line, for a jit of one's own, however the run lay and was optimised."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import checkpoints, guidance, solvers
from experiments.cli.main import UserError
from experiments.config.networks import MLPNetwork
from experiments.config.schema import ADAPTER
from experiments.presets.registry import PRESETS
from experiments.run import folder as run_folder
from experiments.run.model import model_of
from experiments.run.restore import field_of
from experiments.run.train_setup import train_setup_of
from experiments.tasks.registry import task_of


def _saved(run_dir, **changes):
    """A run's folder with one checkpoint, whose moving average is no zero and not the parameters; and its model."""
    small = {"run_dir": run_dir, "network": MLPNetwork(160, 8, 1)} | changes
    experiment = dataclasses.replace(PRESETS["mixture"][1], **small)
    task = task_of(experiment)
    model = model_of(experiment, task)
    state = train_setup_of(experiment, task, model).create()
    ema = jax.tree.map(
        lambda leaf: leaf + 0.01 * jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape), state.ema
    )
    run_folder.open_run(experiment)
    with checkpoints.Writer(run_folder.checkpoints_of(run_dir)) as writer:
        writer.save(1, state._replace(ema=ema), ADAPTER.dump_python(experiment, mode="json"))
    return model, jax.tree.map(np.asarray, ema)


@pytest.mark.parametrize("placement", ["replicated", "sharded"])
def test_the_field_of_a_folder_is_that_of_the_averaged_parameters_in_an_own_jit(placement, tmp_path):
    model, ema = _saved(tmp_path, placement=placement)
    field, x = field_of(str(tmp_path)), jnp.array([0.3, -0.7])
    expected = jax.jit(lambda x, t, y: model.field(ema)(x, t, y))

    @jax.jit
    def draw(x, y, scale):
        guided = guidance.given(guidance.classifier_free(field, scale, 8), y)
        return solvers.integrate(solvers.euler(guided), jax.random.key(0), x, jnp.linspace(0, 1, 3))

    for y in (3, 8):
        np.testing.assert_array_equal(jax.jit(field)(x, 0.5, y), expected(x, 0.5, y))
        assert np.abs(field(x, 0.5, y)).max() > 1e-3
    first = x + 0.5 * (expected(x, 0.0, 8) + 2.0 * (expected(x, 0.0, 3) - expected(x, 0.0, 8)))
    last = first + 0.5 * (expected(first, 0.5, 8) + 2.0 * (expected(first, 0.5, 3) - expected(first, 0.5, 8)))
    np.testing.assert_allclose(draw(x, 3, 2.0), last, rtol=1e-5)


def test_a_null_label_that_was_never_trained_is_told_with_the_field(tmp_path, capsys):
    _saved(tmp_path, label_drop_rate=0.0)
    field_of(tmp_path)
    assert capsys.readouterr().err == (
        f"warning: {tmp_path}: label_drop_rate 0 trains no null label: only w = 1 is learned\n"
    )


def test_a_folder_of_no_field_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run in"):
        field_of(tmp_path / "none")
    wide = MLPNetwork(32, 8, 1)
    _saved(tmp_path)
    experiment = dataclasses.replace(run_folder.read_config(tmp_path), network=wide)
    (tmp_path / "config.json").write_bytes(ADAPTER.dump_json(experiment))
    with pytest.raises(checkpoints.CheckpointError, match="has shape"):
        field_of(tmp_path)
