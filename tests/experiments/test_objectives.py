"""What is trained, by its name: the loss of a prediction of the data, and the field that it makes."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, losses, paths
from experiments.cli.main import UserError
from experiments.config.networks import DiTNetwork
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


@pytest.mark.parametrize(("objective", "rate"), [("field", 1 - 1e-6), ("noise", 0.4)])
def test_null_consistency_is_added_in_training_of_the_label_that_was_not_dropped(objective, rate):
    """Held out it is nothing; beside the loss as it was three times that of the package, at a key of its own."""
    plain = dataclasses.replace(PRESETS["mixture"][1], objective=objective, label_drop_rate=rate)
    task = task_of(plain)
    model, keys = model_of(plain, task), iter(jax.random.split(jax.random.key(1), 100))
    init = model.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(next(keys), leaf.shape), init)
    without, within = (
        train_setup_of(dataclasses.replace(plain, null_consistency=weight), task, model) for weight in (0.0, 3.0)
    )
    key = jax.random.key(4)
    data_key, _, _, noise_key = jax.random.split(key, 4)
    z, y = task.example(data_key, 0)

    def consistency(params):
        field = partial(model.network.apply, params)
        return losses.null_consistency(paths.linear(), field, jax.random.fold_in(noise_key, 0xC0), z, y, 8)

    value, slope = jax.jit(jax.value_and_grad(within.loss))(params, key, jnp.int32(0))
    old, old_slope = jax.jit(jax.value_and_grad(without.loss))(params, key, jnp.int32(0))
    more, more_slope = jax.jit(jax.value_and_grad(consistency))(params)
    np.testing.assert_allclose(value, old + 3 * more, rtol=1e-5)
    jax.tree.map(
        lambda found, first, second: np.testing.assert_allclose(found, first + 3 * second, rtol=1e-3, atol=1e-4),
        *(slope, old_slope, more_slope),
    )
    assert float(more) > 1e-3
    held_out = [jax.jit(setup.evaluation_loss)(params, key, jnp.int32(0)) for setup in (without, within)]
    np.testing.assert_array_equal(*held_out)


@pytest.mark.parametrize(
    "change",
    [{"objective": "classifier"}, {"label_drop_rate": 1.0}, {"network": DiTNetwork(16, 2, 2, internal_block=1)}],
)
def test_null_consistency_needs_two_sides(change):
    experiment = dataclasses.replace(PRESETS["fashion_mnist_classifier"][1], objective="field", null_consistency=1.0)
    experiment = dataclasses.replace(experiment, **change)
    task = task_of(experiment, "shapes")
    with pytest.raises(UserError, match=r"null_consistency must be 0 but for a field .*; got 1"):
        train_setup_of(experiment, task, model_of(experiment, task))


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
