"""Training: (T1), (T2), (T3), and one, two and eight devices with the same result, compared on every shard."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cfgjax import guidance, losses, paths, solvers, training
from cfgjax.training import fsdp

NUM_EXAMPLES = 16
NULL = 2
COUNTS = [1, 2, 8]


def _params():
    keys = jax.random.split(jax.random.key(9), 3)
    shapes = {"inner": (4, 8), "outer": (8, 2), "label": (3, 8)}
    return {name: 0.5 * jax.random.normal(key, shape) for (name, shape), key in zip(shapes.items(), keys, strict=True)}


def _network(params, x, t, y):
    inputs = jnp.concatenate([x, jnp.stack([t, jnp.ones_like(t)])])
    return jnp.tanh(inputs @ params["inner"] + params["label"][y]) @ params["outer"]


def _loss(params, key, example):
    """Classifier-free training (L1): the label dropped, then flow matching, from the example's own key."""
    drop_key, loss_key = jax.random.split(key)
    y = guidance.drop_condition(drop_key, example["y"], 0.25, NULL)
    return losses.flow_matching(paths.linear(), partial(_network, params), loss_key, example["z"], y)


def _batch(seed):
    rng = np.random.default_rng(seed)
    return {
        "z": jnp.asarray(rng.normal(size=(NUM_EXAMPLES, 2)), jnp.float32),
        "y": jnp.asarray(rng.integers(0, 2, NUM_EXAMPLES)),
    }


def _state(optimizer, params=None):
    return training.init_state(_params() if params is None else params, optimizer, jax.random.key(1))


def _forgetful_step(state, batch, source=None, *, axis_name=None):
    """A step that forgets the pmean of (T1)."""
    keys = training.example_keys(state.key, state.step, len(batch["y"]), axis_name)
    gradient = jax.grad(lambda params: jnp.mean(jax.vmap(_loss, (None, 0, 0))(params, keys, batch)))(state.params)
    params = jax.tree.map(lambda value, slope: value - 0.1 * slope, state.params, gradient)
    return state._replace(step=state.step + 1, params=params), {}


def _train(step, num_devices, optimizer, num_steps=20):
    devices = jax.devices()[:num_devices]
    run, state, metrics = training.parallel(step, devices), _state(optimizer), {}
    for index in range(num_steps):
        state, metrics = run(state, training.shard(_batch(index), num_devices))
    return state, metrics


def _shards(tree, num_devices):
    """Each device's own copy of the tree."""
    leaves = [leaf.addressable_shards for leaf in jax.tree.leaves(tree)]
    assert all(len(shards) == num_devices for shards in leaves)
    return [[np.asarray(shards[index].data) for shards in leaves] for index in range(num_devices)]


def _largest_difference(copies, reference):
    return max(np.max(np.abs(a - b)) for copy in copies for a, b in zip(copy, reference, strict=True))


@pytest.fixture(scope="module")
def step():
    """A training step of classifier-free flow matching with SGD, which hides no factor of the gradient."""
    return training.make_step(_loss, optax.sgd(0.1), ema_decay=0.9)


@pytest.fixture(scope="module")
def single(step):
    """State and metrics after 20 plain steps without any device axis, by jit alone."""
    state, plain, metrics = _state(optax.sgd(0.1)), jax.jit(step), {}
    for index in range(20):
        state, metrics = plain(state, _batch(index))
    return state, metrics


@pytest.mark.parametrize("num_devices", COUNTS)
def test_every_shard_agrees_with_one_device(step, single, num_devices):
    """(T1, T2): the same parameters, EMA and metrics to rounding, on every device's own copy."""
    state, metrics = _train(step, num_devices, optax.sgd(0.1))
    found = (state.params, state.ema, metrics)
    reference = [np.asarray(leaf) for leaf in jax.tree.leaves((single[0].params, single[0].ema, single[1]))]
    assert _largest_difference(_shards(found, num_devices), reference) < 1e-5
    moved = _largest_difference([[np.asarray(leaf) for leaf in jax.tree.leaves(_params())]], reference[:3])
    assert moved > 0.1


def test_the_shards_reveal_a_forgotten_mean(single):
    """The comparison above would find a step that does not average, which device 0 alone may not show."""
    state, _ = _train(_forgetful_step, 2, optax.sgd(0.1), num_steps=2)
    first, second = _shards(state.params, 2)
    assert _largest_difference([first], second) > 1e-3


def test_the_state_has_no_device_axis(step):
    state, _ = _train(step, 8, optax.sgd(0.1), num_steps=1)
    before = _state(optax.sgd(0.1))
    assert jax.tree.structure(state) == jax.tree.structure(before)
    assert jax.tree.map(jnp.shape, state) == jax.tree.map(jnp.shape, before)
    assert int(state.step) == 1
    np.testing.assert_array_equal(jax.random.key_data(state.key), jax.random.key_data(before.key))


def test_a_step_is_gradient_descent_on_the_full_batch(step):
    """(T1): params - rate * gradient of the mean of the losses, with the keys of (T2)."""
    state, batch = _state(optax.sgd(0.1)), _batch(0)
    root = jax.random.fold_in(state.key, 0)

    def mean_loss(params):
        values = [
            _loss(params, jax.random.fold_in(root, i), jax.tree.map(lambda leaf, i=i: leaf[i], batch))
            for i in range(NUM_EXAMPLES)
        ]
        return sum(values) / NUM_EXAMPLES

    value, gradient = jax.value_and_grad(mean_loss)(state.params)
    after, metrics = jax.jit(step)(state, batch)
    expected = jax.tree.map(lambda params, slope: params - 0.1 * slope, state.params, gradient)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), after.params, expected)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(gradient)))
    np.testing.assert_allclose(metrics["grad_norm"], norm, rtol=1e-5)


@pytest.mark.parametrize("num_devices", COUNTS)
def test_several_steps_in_one_call_are_those_steps(step, single, num_devices):
    """(T6): after 5 calls of 4 steps the parameters, EMA and counter of 20 single ones; the last call's last loss."""
    devices = jax.devices()[:num_devices]
    run, state, metrics = training.parallel(training.multi_step(step), devices), _state(optax.sgd(0.1)), {}
    for first in range(0, 20, 4):
        batches = [_batch(index) for index in range(first, first + 4)]
        state, metrics = run(state, training.shard_stacked(batches, num_devices))
    assert int(state.step) == 20
    assert metrics["loss"].shape == (4,)
    last = {name: values[-1] for name, values in metrics.items()}
    reference = [np.asarray(leaf) for leaf in jax.tree.leaves((single[0].params, single[0].ema, single[1]))]
    assert _largest_difference(_shards((state.params, state.ema, last), num_devices), reference) < 1e-5


def test_several_batches_are_sharded_example_by_example():
    batches = [np.arange(6) + 10 * number for number in range(2)]
    assert training.shard_stacked(batches, 3).tolist() == [[[0, 1], [10, 11]], [[2, 3], [12, 13]], [[4, 5], [14, 15]]]
    with pytest.raises(ValueError, match="batch_size must be divisible by the number of devices, got 6 on 4"):
        training.shard_stacked(batches, 4)


@pytest.mark.parametrize("num_devices", COUNTS)
@pytest.mark.parametrize("num_microbatches", [1, 2])
def test_a_batch_of_indices_into_a_source_is_that_batch(num_devices, num_microbatches, single):
    """(T4, T5): rows gathered inside the step, and microbatches one after another, change rounding only."""
    step = training.make_step(_loss, optax.sgd(0.1), 0.9, num_microbatches)
    batches = [_batch(index) for index in range(20)]
    source = jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[::-1], *batches)
    devices = jax.devices()[:num_devices]
    run, state, source = training.parallel(step, devices), _state(optax.sgd(0.1)), training.replicate(source, devices)
    for index in range(20):
        rows = 20 * NUM_EXAMPLES - 1 - np.arange(index * NUM_EXAMPLES, (index + 1) * NUM_EXAMPLES)
        state, metrics = run(state, training.shard(rows, num_devices), source)
    reference = [np.asarray(leaf) for leaf in jax.tree.leaves((single[0].params, single[0].ema, single[1]))]
    assert _largest_difference(_shards((state.params, state.ema, metrics), num_devices), reference) < 1e-5


def test_multi_steps_over_the_parts_of_a_batch_are_one_step_where_nothing_is_drawn():
    """k calls with parts of a batch leave the parameters of one call with all of it, but count k steps."""

    def loss(params, key, example):
        field = partial(_network, params)
        return jnp.sum(jnp.square(field(example["z"], jnp.float32(0.5), example["y"]) - example["z"]))

    batch, num_parts = _batch(0), 4
    whole, _ = training.make_step(loss, optax.sgd(0.1), 0.9)(_state(optax.sgd(0.1)), batch)
    accumulating = optax.MultiSteps(optax.sgd(0.1), num_parts)
    step, state = training.make_step(loss, accumulating, 0.9), _state(accumulating)
    for part in range(num_parts):
        state, _ = step(state, jax.tree.map(lambda leaf, part=part: leaf[part::num_parts], batch))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-7), state.params, whole.params)
    assert (int(state.step), int(whole.step)) == (num_parts, 1)
    distances = jax.tree.map(lambda ema, params: jnp.max(jnp.abs(ema - params)), state.ema, whole.ema)
    assert max(jax.tree.leaves(distances)) < 1e-6  # parameters moved in the last call alone, and so did the EMA


def test_chunks_that_do_not_divide_are_refused():
    step = training.make_step(_loss, optax.sgd(0.1), 0.9, num_microbatches=3)
    with pytest.raises(ValueError, match="divisible by num_microbatches, got 16 on 3"):
        step(_state(optax.sgd(0.1)), _batch(0))


def test_a_microbatch_has_examples_of_every_device():
    """(T5): examples 0 to 7 in 2 microbatches are the even and the odd ones, so device d of 4 holds one of each."""
    seen = []

    def loss(params, key, example):
        jax.debug.callback(lambda value: seen.append(int(value)), example, ordered=True)
        return params["a"] * example

    step = training.make_step(loss, optax.sgd(1.0), 0.9, num_microbatches=2)
    jax.block_until_ready(step(_state(optax.sgd(1.0), {"a": jnp.zeros(())}), jnp.arange(8.0)))
    jax.effects_barrier()
    assert seen == [0, 2, 4, 6, 1, 3, 5, 7]


def _trivial_step(ema_decay):
    """A step that adds 1 to the one parameter each time."""
    return training.make_step(lambda params, key, example: -params["a"] + 0 * example, optax.sgd(1.0), ema_decay)


def test_ema_formula():
    """(T3) after three steps on 1, 2, 3 from 0, with decay 3/4: 0.25, 0.6875, 1.265625, all exact in float32."""
    state, seen = _state(optax.sgd(1.0), {"a": jnp.zeros(())}), []
    for _ in range(3):
        state, _ = _trivial_step(0.75)(state, jnp.zeros(4))
        seen.append(float(state.ema["a"]))
    assert seen == [0.25, 0.6875, 1.265625]


def test_ema_decay_may_depend_on_the_step():
    """(T3) with decay n / (n + 1) in step n: the plain mean of all parameters so far."""
    state = _state(optax.sgd(1.0), {"a": jnp.zeros(())})
    for _ in range(4):
        state, _ = _trivial_step(lambda step: step / (step + 1))(state, jnp.zeros(4))
    np.testing.assert_allclose(state.ema["a"], np.mean([1, 2, 3, 4]), rtol=1e-6)


def test_ema_is_float32_for_parameters_of_less():
    state = _state(optax.sgd(1.0), {"a": jnp.zeros((), jnp.bfloat16)})
    state, _ = _trivial_step(0.999)(state, jnp.zeros(4, jnp.bfloat16))
    assert state.params["a"].dtype == jnp.bfloat16
    assert state.ema["a"].dtype == jnp.float32
    np.testing.assert_allclose(state.ema["a"], 0.001, rtol=1e-4)


def test_ema_starts_at_the_parameters():
    jax.tree.map(np.testing.assert_array_equal, _state(optax.sgd(0.1)).ema, _params())


@pytest.mark.parametrize("num_devices", COUNTS)
def test_keys_belong_to_global_indices(num_devices):
    """(T2): example i's key is fold_in(fold_in(key, step), i) however many devices there are."""
    key, per_device = jax.random.key(5), 8 // num_devices
    mapped = jax.pmap(
        lambda _: training.example_keys(key, 3, per_device, "devices"), "devices", devices=jax.devices()[:num_devices]
    )
    found = jax.random.key_data(mapped(jnp.arange(num_devices))).reshape(8, -1)
    expected = [jax.random.key_data(jax.random.fold_in(jax.random.fold_in(key, 3), i)) for i in range(8)]
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(jax.random.key_data(training.example_keys(key, 3, 8)), expected)


def test_each_step_sees_other_keys():
    first, second = (jax.random.key_data(training.example_keys(jax.random.key(5), n, 8)) for n in (0, 1))
    assert not np.any(np.all(np.asarray(first) == np.asarray(second), axis=-1))


def test_donation_leaves_the_callers_arrays_alive(step):
    """The state is donated; the arrays it was created from are not."""
    params, key = _params(), jax.random.key(1)
    state = training.init_state(params, optax.sgd(0.1), key)
    devices = jax.devices()[:2]
    run = training.parallel(step, devices)
    placed = training.replicate(state, devices)
    after, _ = run(placed, training.shard(_batch(0), 2))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(placed.params))
    jax.tree.map(np.testing.assert_array_equal, params, _params())
    np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(after.key))


def test_compiler_options_change_no_result_and_compile_once(step):
    """Two steps and a batch of another shape, on two devices: two traces, the parameters of the plain step."""
    shapes = []

    def counted(state, batch, source=None, *, axis_name=None):
        shapes.append(batch["y"].shape)
        return step(state, batch, source, axis_name=axis_name)

    devices, options = jax.devices()[:2], {"xla_cpu_enable_fast_math": "False"}
    states = []
    for run in (training.parallel(counted, devices, compiler_options=options), training.parallel(step, devices)):
        state = _state(optax.sgd(0.1))
        for seed, size in ((0, 16), (1, 16), (2, 8)):
            state, _ = run(state, training.shard(jax.tree.map(lambda leaf, size=size: leaf[:size], _batch(seed)), 2))
        states.append(state)
    assert shapes == [(8,), (4,)]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5), states[0].params, states[1].params)


def test_compiler_options_reach_the_compiler(step):
    run = training.parallel(step, jax.devices()[:1], compiler_options={"xla_no_such_option": "1"})
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        run(_state(optax.sgd(0.1)), training.shard(_batch(0), 1))


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="got 16 on 3"):
        training.shard(_batch(0), 3)


def test_shards_keep_the_order_of_examples():
    sharded = training.shard({"z": jnp.arange(24).reshape(8, 3), "y": jnp.arange(8)}, 2)
    np.testing.assert_array_equal(sharded["y"], [[0, 1, 2, 3], [4, 5, 6, 7]])
    np.testing.assert_array_equal(sharded["z"][1, 0], [12, 13, 14])


@pytest.fixture
def after_training(step):
    """A state whose EMA is far from its parameters."""
    return jax.jit(step)(_state(optax.sgd(0.1)), _batch(0))[0]


def test_evaluation_is_of_the_ema(after_training):
    evaluate, batch = training.make_eval_step(_loss), _batch(1)
    keys = training.example_keys(after_training.key, 0, NUM_EXAMPLES)
    by_ema, by_params = (
        jnp.mean(jax.vmap(_loss, (None, 0, 0))(params, keys, batch))
        for params in (after_training.ema, after_training.params)
    )
    found = evaluate(after_training, batch)["loss"]
    np.testing.assert_allclose(found, by_ema, rtol=1e-5)
    assert abs(found - by_params) > 1e-4


def test_every_evaluation_sees_the_same_noise(after_training):
    evaluate, batch = jax.jit(training.make_eval_step(_loss)), _batch(1)
    found = [evaluate(after_training._replace(step=jnp.int32(step)), batch)["loss"] for step in (0, 1, 500)]
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("num_devices", COUNTS)
def test_evaluation_in_parallel_keeps_the_state(after_training, num_devices):
    evaluate, devices = training.make_eval_step(_loss), jax.devices()[:num_devices]
    run = training.parallel(evaluate, devices, donate=False)
    found = run(after_training, training.shard(_batch(1), num_devices))["loss"]
    np.testing.assert_allclose(found, evaluate(after_training, _batch(1))["loss"], rtol=1e-5)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(after_training))


def test_training_lowers_the_loss():
    """200 steps of Adam on one batch: the EMA beats the start at fixed noise."""
    step = jax.jit(training.make_step(_loss, optax.adam(1e-2), ema_decay=0.9))
    evaluate, batch = jax.jit(training.make_eval_step(_loss)), _batch(0)
    state = start = _state(optax.adam(1e-2))
    for _ in range(200):
        state, _ = step(state, batch)
    assert evaluate(state, batch)["loss"] < 0.8 * evaluate(start, batch)["loss"]


NOT_SHARDED = {
    "as it is": lambda: _batch(0),
    "one example a device": lambda: jax.tree.map(lambda leaf: leaf[:8], _batch(0)),
    "for fewer devices": lambda: training.shard(_batch(0), 4),
    "for more devices": lambda: training.shard(_batch(0), 16),
    "in part": lambda: training.shard(_batch(0), 8) | {"y": _batch(0)["y"]},
    "a number": lambda: training.shard(_batch(0), 8) | {"y": 3},
    "a list": lambda: [[0.5, 1.0]] * 8,
    "nothing": lambda: None,
}
"""Made in the test: other processes import this module before they join."""


@pytest.mark.parametrize("make_run", [training.parallel, fsdp.fsdp])
@pytest.mark.parametrize("make_batch", list(NOT_SHARDED.values()), ids=list(NOT_SHARDED))
def test_a_batch_that_is_not_cut_for_the_devices_is_refused(make_batch, make_run, step):
    with pytest.raises(ValueError, match=r"8 local devices in front, as of training\.shard\(batch, 8\), got "):
        make_run(step)(_state(optax.sgd(0.1)), make_batch())


@pytest.mark.parametrize("make_run", [training.parallel, fsdp.fsdp])
def test_one_batch_for_several_steps_is_refused(make_run, step):
    with pytest.raises(ValueError, match=r"as of training\.shard_stacked\(batches, 8\), got a leaf of shape \(8, 2\)"):
        make_run(training.multi_step(step))(_state(optax.sgd(0.1)), training.shard(_batch(0)["y"], 8))


def test_a_state_that_was_donated_is_refused(step):
    """JAX 0.10.2 would wait for ever, or end the process, on several devices."""
    run, batch = training.parallel(step, jax.devices()[:2]), training.shard(_batch(0), 2)
    state = training.replicate(_state(optax.sgd(0.1)), jax.devices()[:2])
    run(state, batch)
    with pytest.raises(ValueError, match="state must be the one that the last call returned"):
        run(state, batch)


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit])
def test_state_and_batch_may_lie_elsewhere(kind, step, single):
    """The state on one device, as restored, or on a mesh of another kind; the batch on that mesh, or on one device."""
    mesh, devices = jax.make_mesh((2,), ("rows",), axis_types=(kind,), devices=jax.devices()[2:4]), jax.devices()[:2]
    state = jax.device_put(_state(optax.sgd(0.1)), jax.NamedSharding(mesh, jax.P()))
    run = training.parallel(step, devices)
    for index in range(20):
        place = jax.devices()[5] if index % 2 else jax.NamedSharding(mesh, jax.P("rows"))
        state, _ = run(state, jax.device_put(training.shard(_batch(index), 2), place))
    found, expected = (jax.tree.leaves(each.params) for each in (state, single[0]))
    assert _largest_difference([[np.asarray(leaf) for leaf in found]], [np.asarray(leaf) for leaf in expected]) < 1e-5


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Auto, jax.sharding.AxisType.Explicit])
def test_guided_samples_on_eight_devices_are_those_of_one(kind):
    """The recipe of the page on one's own network, with both kinds of mesh; ``jax.make_mesh`` makes explicit ones."""
    params = _params()

    def draw(key, y, scale):
        noise_key, solver_key = jax.random.split(key)
        guided = guidance.given(guidance.classifier_free(partial(_network, params), scale, NULL), y)
        noise = jax.random.normal(noise_key, (2,))
        return solvers.integrate(solvers.heun(guided), solver_key, noise, jnp.linspace(0, 1, 9))

    keys, labels = jax.random.split(jax.random.key(2), 16), jnp.arange(16) % 2
    expected = jax.jit(jax.vmap(draw, in_axes=(0, 0, None)))(keys, labels, 2.0)
    mesh, rows = jax.make_mesh((8,), ("devices",), axis_types=(kind,)), jax.P("devices")
    on_all = jax.shard_map(
        jax.vmap(draw, (0, 0, None)), mesh=mesh, in_specs=(rows, rows, jax.P()), out_specs=rows, check_vma=False
    )
    found = jax.jit(on_all)(*jax.device_put((keys, labels), jax.NamedSharding(mesh, rows)), 2.0)
    assert len(found.sharding.device_set) == 8
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-5, atol=1e-6)
