"""What is trained, by its name: the loss of a prediction of the data, and the field that it makes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance
from experiments.cli.main import UserError
from experiments.presets.registry import PRESETS
from experiments.run.model import model_of
from experiments.run.train_setup import train_setup_of
from experiments.tasks.registry import task_of


def test_the_data_are_predicted_with_the_loss_of_their_velocity():
    """Li & He's algorithm 1 at the time, noise and label of the step's own keys; the field is their algorithm 2's."""
    experiment = dataclasses.replace(PRESETS["mixture"][1], objective="data")
    task = task_of(experiment)
    model = model_of(experiment, task)
    params = jax.tree.map(lambda leaf: leaf + 0.1, model.init(jax.random.key(0)))
    setup = train_setup_of(experiment, task, model)
    evaluate, apply = jax.jit(setup.evaluation_loss), jax.jit(model.network.apply)
    field, times = jax.jit(model.field(params)), []
    for seed in (0, 2, 22):
        key = jax.random.key(seed)
        data_key, label_key, _, loss_key = jax.random.split(key, 4)
        z, label = task.example(data_key, 0)
        y = guidance.drop_condition(label_key, label, experiment.label_drop_rate, 8)
        time_key, noise_key = jax.random.split(loss_key)
        t = float(jax.random.uniform(time_key))
        x = t * z + (1 - t) * jax.random.normal(noise_key, z.shape)
        predicted = apply(params, x, jnp.float32(t), y)
        velocities = [(np.asarray(data) - x) / max(1 - t, 0.05) for data in (z, predicted)]
        found = evaluate(params, key, jnp.int32(0))
        np.testing.assert_allclose(found, np.mean((velocities[0] - velocities[1]) ** 2), rtol=1e-3)
        np.testing.assert_allclose(field(x, jnp.float32(t), y), velocities[1], rtol=1e-3, atol=1e-4)
        times.append(t)
    assert max(times) > 0.95, "the bound is among those tried"


def test_the_times_of_a_logit():
    """Those of JiT lie where sigmoid(0.8 n - 0.8) does; other densities have no logit."""
    experiment = dataclasses.replace(PRESETS["mixture"][1], time_density="logit_normal", time_logit=(-0.8, 0.8))
    task = task_of(experiment)
    setup = train_setup_of(experiment, task, model_of(experiment, task)._replace(network=_Recorder()))
    key = jax.random.key(5)
    loss = setup.evaluation_loss(None, key, jnp.int32(0))
    time_key, noise_key = jax.random.split(jax.random.split(key, 4)[3])
    t = jax.nn.sigmoid(0.8 * jax.random.normal(time_key) - 0.8)
    z, _ = task.example(jax.random.split(key, 4)[0], 0)
    np.testing.assert_allclose(loss, jnp.mean((t - (z - jax.random.normal(noise_key, z.shape))) ** 2), rtol=1e-5)
    uniform = dataclasses.replace(experiment, time_density="uniform")
    with pytest.raises(UserError, match="time_logit is of the time_density 'logit_normal', got it with 'uniform'"):
        train_setup_of(uniform, task, model_of(uniform, task))


class _Recorder:
    """A network that gives the time."""

    def apply(self, params, x, t, *rest, **options):
        return jnp.full_like(x, t)
