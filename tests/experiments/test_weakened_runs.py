"""Runs of a transformer with an internal head: their loss, and guidance by a weakened self as its options ask for."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import guidance, losses
from cfgjax.models import Weakening
from experiments.cli.main import UserError
from experiments.config.networks import DiTNetwork, MLPNetwork
from experiments.config.samplers import num_evaluations
from experiments.presets.registry import PRESETS
from experiments.run.model import model_of
from experiments.run.restore import Run
from experiments.run.train_setup import train_setup_of
from experiments.sample.guided import rule_of
from experiments.sample.options import GuidanceOptions
from experiments.tasks.registry import facts_of, task_of
from tests.support.commands import command

NETWORK = DiTNetwork(width=16, depth=2, num_heads=2, patch=7, internal_block=1)
NULL, Y, T = 10, 3, 0.4


def _experiment(**settings):
    return dataclasses.replace(PRESETS["fashion_mnist"][1], **{"network": NETWORK} | settings)


@functools.cache
def _run(path="linear", network=NETWORK):
    """A run whose parameters are drawn, none of them zero."""
    experiment = _experiment(path=path, network=network)
    facts = facts_of(experiment)
    model, rng = model_of(experiment, facts), np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype), shapes)
    return Run(experiment, facts, model, params)


def _x():
    return jax.random.normal(jax.random.key(1), (28, 28, 1))


def _rule(run=None, **options):
    return rule_of(GuidanceOptions(**options), run or _run(), np.array([Y]), None)


def _guided(scale, **options):
    """The guided field that the options ask for."""
    return np.asarray(jax.jit(_rule(**options)(lambda field: field)(scale))(_x(), T, Y))


@functools.cache
def _fields():
    """The run's field, its null field, a weakened one and both sides at one place, each by hand."""
    run, x = _run(), _x()
    apply = functools.partial(run.model.network.apply, run.ema, x, T)
    weakened = apply(Y, weakening=Weakening(skipped=(0,), alone=(1,)))
    sides, null_sides = (apply(label, method="sides") for label in (Y, NULL))
    return tuple(map(np.asarray, (apply(Y), apply(NULL), weakened, sides[0], null_sides[0])))


BLOCKS = "skipped=0", "alone=1"


def test_blocks_are_led_away_from_in_the_nulls_place():
    field, null, weak, _, _ = _fields()
    np.testing.assert_allclose(_guided(2.5, weakened=BLOCKS), weak + 2.5 * (field - weak), rtol=1e-4, atol=1e-4)
    expected = null + 2 * (field - null) + 0.75 * (field - weak)
    found = _guided(2.0, weakened=BLOCKS, weak_scale=1.75)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert min(np.abs(weak - field).max(), np.abs(null - field).max()) > 1e-2


def test_the_middle_is_led_away_from_alone_or_on_both_sides_of_the_nulls_guidance():
    field, null, _, internal, null_internal = _fields()
    found = _guided(1.5, weakened=("internal",))
    np.testing.assert_allclose(found, internal + 1.5 * (field - internal), rtol=1e-4, atol=1e-4)
    labelled, at_null = (a + 1.5 * (b - a) for a, b in ((internal, field), (null_internal, null)))
    found = _guided(2.0, weakened=("internal",), weak_scale=1.5)
    np.testing.assert_allclose(found, at_null + 2 * (labelled - at_null), rtol=1e-4, atol=1e-4)
    assert min(np.abs(internal - field).max(), np.abs(null_internal - null).max()) > 1e-2


@pytest.mark.slow
def test_outside_the_interval_the_field_is_as_learned():
    found = _guided(3.0, weakened=BLOCKS, weak_scale=2.0, interval=(0.5, 0.9))
    np.testing.assert_allclose(found, _fields()[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"weakened": ("internal",)}, 1),
        ({"weakened": ("internal",), "weak_scale": 1.5}, 2),
        ({"weakened": BLOCKS}, 2),
        ({"weakened": BLOCKS, "weak_scale": 1.5}, 3),
        ({"weakened": BLOCKS, "weak_scale": 1.0}, 2),
        ({"weakened": BLOCKS, "reuse": 2}, 1.5),
        ({"weakened": ("internal",), "weak_scale": 1.5, "reuse": 4}, 1.25),
    ],
)
def test_evaluations_are_counted(options, count):
    run = _run()
    found = num_evaluations(_rule(**options), run.field, run.path, (28, 28, 1), "euler", np.linspace(0, 1, 5), 2.0, Y)
    assert found == 4 * count


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weakened": ("internal",)}, "reuse must be left out where internal is weakened: both sides are one"),
        ({"weakened": BLOCKS, "weak_scale": 1.5}, "reuse must be left out where blocks are weakened beside the null"),
    ],
)
def test_a_reuse_that_would_spare_nothing_is_refused(options, words):
    with pytest.raises(UserError, match=words):
        _rule(**options, reuse=2)


@pytest.mark.slow
def test_sides_of_a_run_on_another_path_are_on_that_of_sampling():
    run = _run("ddpm")
    internal, final = jax.jit(run.sides)(_x(), T, Y)
    np.testing.assert_allclose(final, jax.jit(run.field)(_x(), T, Y), rtol=1e-4, atol=1e-4)
    assert np.abs(np.asarray(internal - final)).max() > 1e-2


def test_the_head_is_trained_by_the_loss_of_both_ends(data_dir):
    experiment = _experiment(data_dir=data_dir)
    task = task_of(experiment)
    model, params, key = model_of(experiment, task), _run().ema, jax.random.key(4)
    setup = train_setup_of(experiment, task, model)
    data_key, drop_key, _, loss_key = jax.random.split(key, 4)
    example = jax.tree.map(lambda leaf: leaf[0], task.held_out)
    z, label = task.example(data_key, example)
    y = guidance.drop_condition(drop_key, label, 0.1, NULL)
    sides = functools.partial(model.network.apply, params, method="sides")
    ends = [losses.flow_matching(model.path, lambda x, t, y: sides(x, t, y)[i], loss_key, z, y) for i in range(2)]  # noqa: B023
    found = jax.jit(setup.evaluation_loss)(params, key, example)
    np.testing.assert_allclose(found, ends[1] + 0.5 * ends[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("preset", "objective"),
    [("fashion_mnist", "data"), ("fashion_mnist_flow_map", "flow_map"), ("fashion_mnist_classifier", "classifier")],
)
def test_the_head_is_of_fields_that_are_matched_alone(preset, objective):
    experiment = dataclasses.replace(PRESETS[preset][1], network=NETWORK, objective=objective)
    with pytest.raises(UserError, match=r"network\.internal_block must be 0 but for the objective 'field', got 1"):
        model_of(experiment, facts_of(experiment))


WRONG = {
    "a word": ({"weakened": ("middle",)}, "weakened must be internal, or some of skipped=2,3, alone=2,3"),
    "no number": ({"weakened": ("skipped=1,x",)}, "each once, got skipped=1,x"),
    "twice": ({"weakened": ("alone=1", "alone=2")}, "each once, got alone=2"),
    "both": ({"weakened": ("internal", "alone=2")}, "weakened must be internal, or some of"),
    "a block beyond": ({"weakened": ("skipped=2",)}, r"weakening.skipped: a block must be in 0..1, got 2"),
    "a scale of nothing": ({"weak_scale": 2.0}, "weak_scale must be left out where no network is weakened"),
    "a worse one": ({"weakened": BLOCKS, "worse": "runs"}, "weakened must be left out where a worse network or"),
    "a classifier": ({"weakened": BLOCKS, "classifier": "runs"}, "weakened must be left out where a worse network or"),
    "a negative": ({"weakened": BLOCKS, "negative": "1"}, "negative must be left out where the weakened network"),
    "a rule": ({"weakened": BLOCKS, "weak_scale": 2.0, "rule": "projected"}, "rule must be classifier_free where"),
}


@pytest.mark.parametrize("name", WRONG)
def test_options_that_do_not_fit_are_one_line(name):
    options, message = WRONG[name]
    with pytest.raises(UserError, match=message):
        _rule(**options)


def test_a_run_without_a_middle_or_without_blocks_is_refused():
    plain = _run(network=dataclasses.replace(NETWORK, internal_block=0))
    with pytest.raises(UserError, match=r"weakened must not be internal: the run has no network\.internal_block"):
        _rule(plain, weakened=("internal",))
    with pytest.raises(UserError, match="weakened must be left out: the network is no transformer and no U-Net"):
        _rule(_run(network=MLPNetwork(width=8, depth=1)), weakened=("skipped=0",))


@pytest.mark.slow
def test_a_run_with_a_middle_is_trained_and_sampled(data_dir, tmp_path):
    small = ["--network.width=16", "--network.depth=2", "--network.num-heads=2", "--network.patch=7"]
    steps = ["--num-steps=4", "--batch-size=16", "--num-microbatches=1", "--save-every=2", "--log-every=1"]
    report = ["--sampling.num-steps=2", "--sampling.num-per-class=1", "--sampling.scales", "1", "2"]
    settings = [*small, *steps, *report, "--network.internal-block=1", "--data-dir", data_dir]
    assert command("train", "fashion_mnist", "--run-dir", tmp_path / "run", *settings).returncode == 0
    for number, options in enumerate((["internal"], ["internal", "--weak-scale=1.5"], ["skipped=1", "alone=0"])):
        out = tmp_path / f"{number}.npz"
        done = command("sample", tmp_path / "run", "--num-steps=2", "--out", out, "--weakened", *options)
        assert done.returncode == 0, done.stderr
        assert f"({4 * (1, 2, 2)[number]} evaluations each)" in done.stdout
        assert np.all(np.isfinite(np.load(out)["x"]))
