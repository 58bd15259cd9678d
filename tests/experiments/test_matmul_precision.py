"""A float32 network's products have the precision that its run says, on every way to the compiler."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from cfgjax import training
from cfgjax.models import DiT, UNet
from cfgjax.training import fsdp
from experiments.config.networks import DiTNetwork, MLPNetwork, UNetNetwork
from experiments.config.renamed import with_older_names
from experiments.evaluation import feature_classifier
from experiments.presets.registry import PRESETS
from experiments.run import folder as run_folder
from experiments.run import launches
from experiments.run.model import model_of
from experiments.run.train_setup import state_of, train_setup_of
from experiments.tasks.registry import task_of
from tests.support.lowered import lowered, products

NETWORKS = {
    "mixture": MLPNetwork(width=8, embedding_width=8, depth=1),
    "fashion_mnist": DiTNetwork(width=16, depth=1, num_heads=2, patch=7),
    "fashion_mnist_classifier": UNetNetwork(8, (1, 1), blocks_per_level=1, attention=(7,), patch=2),
}


def _experiment(preset, precision, **settings):
    network = dataclasses.replace(NETWORKS[preset], **settings)
    return dataclasses.replace(
        PRESETS[preset][1], network=network, batch_size=8, num_microbatches=1, matmul_precision=precision
    )


def _step_of(experiment):
    """An experiment's step, without data, and the forms of its arguments."""
    task = task_of(experiment, "shapes")
    model = model_of(experiment, task)
    setup, state = train_setup_of(experiment, task, model), jax.eval_shape(lambda: state_of(experiment, model))
    step = training.make_step(setup.loss, setup.optimizer, setup.ema_decay)
    return step, state, next(task.batches(range(1))), task.source


def _asked(program, kind="f32"):
    """The precisions of a program's products of one type."""
    return {each.precision for each in products(program) if each.types == {kind}}


@pytest.mark.parametrize("precision", ["default", "high", "highest"])
@pytest.mark.parametrize("preset", NETWORKS)
def test_a_training_step_has_the_precision_of_its_run(preset, precision):
    step, *args = _step_of(_experiment(preset, precision))
    assert _asked(lowered(step, *args)) == {precision.upper()}


def test_presets_in_float32_train_in_float32():
    for name in ("mixture", "fashion_mnist"):
        step, *args = _step_of(PRESETS[name][1])
        assert _asked(lowered(step, *args)) == {"HIGHEST"}


@pytest.mark.parametrize("preset", ["fashion_mnist", "fashion_mnist_classifier"])
def test_a_bfloat16_network_leaves_its_products_to_the_device(preset):
    step, *args = _step_of(_experiment(preset, "highest", dtype="bfloat16"))
    program = lowered(step, *args)
    assert _asked(program, "bf16") == _asked(program) == {"DEFAULT"}


def _placed(way, step, state, batch, source):
    devices = jax.devices()[:2]
    batch = jax.eval_shape(lambda tree: training.shard(tree, 2), batch)
    if way == "pmap":
        return training.pmapped(step, devices).lower(state, batch, source)
    return fsdp.program(step, state, batch, source, mesh=fsdp.mesh_of(devices)).lower(state, batch, source)


@pytest.mark.parametrize("way", ["pmap", "fsdp"])
def test_it_holds_under_every_placement(way):
    step, *args = _step_of(_experiment("fashion_mnist_classifier", "highest"))
    assert _asked(_placed(way, step, *args)) == {"HIGHEST"}


def test_a_field_keeps_it_whatever_the_caller_s_own_precision():
    for precision, expected in (("highest", "HIGHEST"), ("default", "HIGH")):
        experiment = _experiment("mixture", precision)
        model = model_of(experiment, task_of(experiment))
        field = model.field(model.init(jax.random.key(0)))
        with jax.default_matmul_precision("high"):
            assert _asked(lowered(field, jnp.ones(2), jnp.float32(0.5), jnp.int32(1))) == {expected}


NETS = {
    "transformer": DiT(width=16, depth=1, num_heads=2, patch=4, num_classes=3, rematerialise=True),
    "unet": UNet(width=8, multipliers=(1, 1), blocks_per_level=1, attention=(4,), num_classes=3),
}


@pytest.mark.parametrize("name", NETS)
def test_the_library_s_networks_have_the_caller_s(name):
    """One function, traced under several: none finds what was traced under another. Gradients have it as well."""
    network, point = NETS[name], (jnp.ones((8, 8, 1)), jnp.float32(0.5), jnp.int32(1))
    params = jax.eval_shape(network.init, jax.random.key(0), *point)
    slope = jax.jit(jax.grad(lambda params: jnp.sum(network.apply(params, *point))))
    for precision in ("highest", "default", "high"):
        with jax.default_matmul_precision(precision):
            traced = slope.trace(params)
        assert _asked(traced.lower(lowering_platforms=("tpu",))) == {precision.upper()}


def test_features_are_exact_on_every_device():
    network = feature_classifier.ConvNet(3)
    params = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((8, 8, 1)))
    loss = feature_classifier._loss(network)
    example = jnp.zeros((8, 8, 1), jnp.uint8), jnp.int32(1)
    assert _asked(lowered(jax.grad(loss), params, jax.random.key(0), example)) == {"HIGHEST"}


def test_a_start_tells_it(tmp_path):
    for experiment in (_experiment("mixture", "high"), _experiment("fashion_mnist", "high", dtype="bfloat16")):
        launches.write(dataclasses.replace(experiment, run_dir=tmp_path), None, 0)
    rows = (tmp_path / launches.NAME).read_text().splitlines()
    assert [json.loads(row)["matmul_precision"] for row in rows] == ["high", "default"]


def test_a_run_of_another_precision_is_another_run(tmp_path):
    experiment = dataclasses.replace(_experiment("mixture", "highest"), run_dir=tmp_path)
    run_folder.open_run(experiment)
    with pytest.raises(run_folder.UserError, match="holds a run with matmul_precision = highest, not default"):
        run_folder.open_run(dataclasses.replace(experiment, matmul_precision="default"))
    counted = [
        with_older_names(run_folder.settings_that_count(dataclasses.replace(experiment, matmul_precision=each)))
        for each in ("highest", "default")
    ]
    assert [each.get("matmul_precision") for each in counted] == [None, "default"]
