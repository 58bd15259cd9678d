"""States sharded over devices: the bytes of (F3), the numbers of pmap on every shard (F2), and no gathered batch."""

import dataclasses
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, PartitionSpec

from cfgjax import checkpoints, guidance, losses, paths, training
from cfgjax.models import DiT, UNet
from cfgjax.training import fsdp
from tests.training.test_training import NUM_EXAMPLES, _batch, _loss, _params, _state

COUNTS = [1, 2, 8]
CUT_ALL = 16
"""Elements of the smallest leaf that is cut here: every matrix of the small network is."""


def _devices(count):
    return jax.devices()[:count]


def _batches(num_steps):
    return [_batch(index) for index in range(num_steps)]


def _trained(make_run, num_devices, step, optimizer, num_steps=4):
    """State and metrics after some steps by ``training.parallel`` or its twin."""
    run, state, metrics = make_run(step, _devices(num_devices)), _state(optimizer), {}
    for batch in _batches(num_steps):
        state, metrics = run(state, training.shard(batch, num_devices))
    return state, metrics


_sharded = partial(fsdp.fsdp, least=CUT_ALL)


def _plain(leaf):
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(leaf) if is_key else leaf)


def _assert_shards_agree(found, expected, tolerance):
    """Every device's part of every leaf is that part of the expected leaf."""
    for leaf, reference in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert leaf.shape == reference.shape
        reference = np.asarray(reference, np.float32)
        for shard in leaf.addressable_shards:
            assert np.max(np.abs(np.asarray(shard.data, np.float32) - reference[shard.index]), initial=0) < tolerance


@pytest.fixture(scope="module")
def step():
    """A training step of classifier-free flow matching with SGD, which hides no factor of the gradient."""
    return training.make_step(_loss, optax.sgd(0.1), ema_decay=0.9)


@pytest.fixture(scope="module")
def single(step):
    """State and metrics after 4 plain steps on one device, by jit alone."""
    state, plain, metrics = _state(optax.sgd(0.1)), jax.jit(step), {}
    for batch in _batches(4):
        state, metrics = plain(state, batch)
    return state, metrics


@pytest.mark.parametrize(
    ("num_devices", "num_microbatches"),
    [pytest.param(1, 1, marks=pytest.mark.slow), pytest.param(2, 1, marks=pytest.mark.slow), (8, 1), (8, 2)],
)
def test_every_shard_is_that_of_pmap(num_devices, num_microbatches):
    """(F2): parameters, EMA, metrics and step after 4 steps of SGD with momentum; microbatches change rounding only."""
    optimizer = optax.sgd(0.1, momentum=0.5)
    step = training.make_step(_loss, optimizer, 0.9, num_microbatches)
    expected, reference = _trained(training.parallel, num_devices, step, optimizer)
    state, metrics = _trained(_sharded, num_devices, step, optimizer)
    rest = lambda state: (state.step, state.params, state.opt_state, state.ema)  # noqa: E731
    _assert_shards_agree(rest(state), rest(expected), 1e-5)
    _assert_shards_agree(metrics, reference, 1e-5)
    np.testing.assert_array_equal(_plain(state.key), _plain(expected.key))
    assert np.max(np.abs(np.asarray(state.params["inner"]) - _params()["inner"])) > 0.05


def test_the_shards_would_reveal_other_noise(step):
    """The comparison above tells a batch in another order, whose examples take each other's keys."""
    first, second = (_trained(_sharded, 2, step, optax.sgd(0.1), 1)[0] for _ in range(2))
    _assert_shards_agree(first.params, second.params, 1e-7)
    turned = jax.tree.map(lambda leaf: leaf[::-1], training.shard(_batch(0), 2))
    other, _ = _sharded(step, _devices(2))(_state(optax.sgd(0.1)), turned)
    with pytest.raises(AssertionError):
        _assert_shards_agree(other.params, first.params, 1e-4)


@pytest.mark.parametrize("num_devices", COUNTS)
def test_several_steps_in_one_call_are_those_steps(num_devices, step, single):
    """(T6): the batches of ``shard_stacked``, as they are."""
    expected, reference = single
    run = _sharded(training.multi_step(step), _devices(num_devices))
    state, metrics = run(_state(optax.sgd(0.1)), training.shard_stacked(_batches(4), num_devices))
    assert metrics["loss"].shape == (4,)
    _assert_shards_agree((state.params, state.ema), (expected.params, expected.ema), 1e-5)
    np.testing.assert_allclose(metrics["loss"][-1], reference["loss"], rtol=1e-5)


@pytest.mark.parametrize("num_devices", COUNTS)
def test_a_batch_of_indices_into_a_source_is_that_batch(num_devices, step, single):
    expected, _ = single
    source = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *_batches(4))
    run, state = _sharded(step, _devices(num_devices)), _state(optax.sgd(0.1))
    for rows in np.arange(4 * NUM_EXAMPLES).reshape(4, -1):
        state, _ = run(state, training.shard(rows, num_devices), source)
    _assert_shards_agree((state.params, state.ema), (expected.params, expected.ema), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", COUNTS)
def test_an_evaluation_keeps_the_state(num_devices):
    evaluate, state = (
        training.make_eval_step(_loss),
        fsdp.shard_state(_state(optax.sgd(0.1)), _devices(num_devices), 16),
    )
    run = _sharded(evaluate, _devices(num_devices), donate=False)
    found = run(state, training.shard(_batch(1), num_devices))["loss"]
    np.testing.assert_allclose(found, evaluate(_state(optax.sgd(0.1)), _batch(1))["loss"], rtol=1e-5)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(state))


def _shapes(*shapes, dtype=jnp.float32):
    return [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]


def _specs(state, mesh, least=1):
    return [placed.spec for placed in jax.tree.leaves(fsdp.shardings(state, mesh, least))]


def test_the_axis_that_is_cut():
    """(F1) on 8 devices: most parts, then the first; small leaves, scalars and keys stay whole."""
    mesh = fsdp.mesh_of()
    every = mesh.axis_names
    assert len(every) == 3
    state = _shapes((8, 16), (16, 8), (100, 8), (6, 3), (3, 12), (5, 3), (8,), ())
    first, last, whole = PartitionSpec(every), PartitionSpec(None, every), PartitionSpec()
    half, quarter = PartitionSpec(every[:1]), PartitionSpec(None, every[:2])
    assert _specs(state, mesh) == [first, first, last, half, quarter, whole, first, whole]
    assert _specs(state, mesh, least=129) == [whole, whole, last] + [whole] * 5
    assert _specs([jax.random.split(jax.random.key(0), 64)], mesh) == [whole]


def test_more_than_enough_parts_are_no_reason_for_another_axis():
    """(F1) on 256 devices: 64 x 3 rows in 64 parts, rather than 256 columns in 256; 32 rows are too few."""
    names = tuple("abcdefgh")
    mesh = jax.sharding.AbstractMesh((2,) * 8, names)
    expected = [PartitionSpec(names[:6]), PartitionSpec(None, names)]
    assert _specs(_shapes((192, 256), (32, 256)), mesh) == expected


def test_a_mesh_of_one_axis_cuts_or_leaves_whole():
    mesh = Mesh(np.asarray(jax.devices()), ("all",))
    assert _specs(_shapes((8, 3), (4, 3)), mesh) == [PartitionSpec(("all",)), PartitionSpec()]


@pytest.mark.parametrize("num_devices", [1, 2, 3, 6, 8])
def test_the_mesh_has_an_axis_for_each_prime_factor(num_devices):
    mesh = fsdp.mesh_of(_devices(num_devices))
    assert list(mesh.shape.values()) == {1: [1], 2: [2], 3: [3], 6: [2, 3], 8: [2, 2, 2]}[num_devices]
    assert list(mesh.devices.flat) == _devices(num_devices)


@pytest.mark.parametrize("num_devices", COUNTS)
def test_bytes_on_a_device_are_as_predicted(num_devices, step):
    """(F3) before and after a step: each large leaf's share, and the sum of all shards."""
    abstract = jax.eval_shape(lambda: _state(optax.adam(1e-3)))
    placed = fsdp.shardings(abstract, fsdp.mesh_of(_devices(num_devices)), CUT_ALL)
    predicted = fsdp.bytes_per_device(abstract, placed)
    step = training.make_step(_loss, optax.adam(1e-3), 0.9)
    state = fsdp.shard_state(_state(optax.adam(1e-3)), _devices(num_devices), CUT_ALL)
    after, _ = _sharded(step, _devices(num_devices), donate=False)(state, training.shard(_batch(0), num_devices))
    for found in (state, after):
        for leaf in jax.tree.leaves((found.params["inner"], found.ema["outer"], found.opt_state[0].mu["inner"])):
            assert {shard.data.size for shard in leaf.addressable_shards} == {leaf.size // num_devices}
        for index in range(num_devices):
            held = [leaf.addressable_shards[index].data for leaf in jax.tree.leaves(found)]
            assert sum(part.size * part.dtype.itemsize for part in held) == predicted
    cut, whole = 4 * (32 + 16 + 24) * 4, 4 + 4 + 8
    assert predicted == cut // num_devices + whole


def test_a_leaf_that_the_devices_do_not_divide_is_cut_into_fewer_parts():
    """(F3): 6 rows on 8 devices are 2 parts, each held by 4 devices."""
    state = _shapes((6, 5), dtype=jnp.bfloat16)
    placed = fsdp.shardings(state, fsdp.mesh_of(), least=1)
    assert fsdp.bytes_per_device(state, placed) == 3 * 5 * 2


def test_a_state_is_made_on_its_shards():
    made = fsdp.init_state(lambda: _state(optax.adam(1e-3)), _devices(8), CUT_ALL)
    _assert_shards_agree(made._replace(key=()), _state(optax.adam(1e-3))._replace(key=()), 1e-7)
    assert made.params["inner"].addressable_shards[0].data.size == 4
    np.testing.assert_array_equal(_plain(made.key), _plain(jax.random.key(1)))


@pytest.mark.parametrize("start", ["fresh", "replicated", "placed"])
def test_a_second_call_compiles_and_traces_nothing(start, step):
    """Wherever the first state lay; another size of batch is another program."""
    shapes, compiled = [], []

    def counted(state, batch, source=None, *, axis_name=None):
        shapes.append(batch["y"].shape)
        return step(state, batch, source, axis_name=axis_name)

    state, devices = _state(optax.sgd(0.1)), _devices(8)
    places = {
        "fresh": lambda tree: tree,
        "replicated": partial(training.replicate, devices=devices),
        "placed": partial(fsdp.shard_state, devices=devices, least=CUT_ALL),
    }
    run, state = _sharded(counted, devices), places[start](state)
    state, _ = run(state, training.shard(_batch(0), 8))
    seen = list(shapes)
    listen = lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None  # noqa: E731
    jax.monitoring.register_event_duration_secs_listener(listen)
    for index in range(1, 4):
        state, _ = run(state, training.shard(_batch(index), 8))
    jax.monitoring.unregister_event_duration_listener(listen)
    assert set(seen) == {(NUM_EXAMPLES,)}
    assert shapes == seen
    assert not compiled


def test_the_old_state_gives_its_memory_and_not_the_callers_arrays(step):
    params, key = _params(), jax.random.key(1)
    state = training.init_state(params, optax.sgd(0.1), key)
    placed = fsdp.shard_state(state, _devices(8), CUT_ALL)
    after, _ = _sharded(step, _devices(8))(placed, training.shard(_batch(0), 8))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(placed.params))
    jax.tree.map(np.testing.assert_array_equal, params, _params())
    np.testing.assert_array_equal(_plain(key), _plain(after.key))


def test_compiler_options_reach_the_compiler(step):
    run = _sharded(step, _devices(2), compiler_options={"xla_no_such_option": "1"})
    with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
        run(_state(optax.sgd(0.1)), training.shard(_batch(0), 2))


@pytest.mark.parametrize(("platform", "count"), [("tpu", 1), ("gpu", 0), ("cpu", 0)])
def test_tpus_alone_are_told_to_gather_whole_weights(platform, count):
    device = dataclasses.make_dataclass("Device", ["platform", "id"], frozen=True)(platform, 0)
    mesh = Mesh(np.array([device]), "d")
    assert sum("windowed_einsum" in name for name in fsdp._options_for(mesh)) == count


@pytest.mark.parametrize("batch", [{"y": np.zeros((4, 4))}, {"y": np.zeros(8)}, {"y": np.zeros(())}])
def test_a_batch_without_its_devices_in_front_is_refused(batch, step):
    with pytest.raises(ValueError, match="batch must have the 8 local devices in front"):
        _sharded(step, _devices(8))(_state(optax.sgd(0.1)), batch)


def test_chunks_that_do_not_divide_are_refused():
    run = _sharded(training.make_step(_loss, optax.sgd(0.1), 0.9, num_microbatches=3), _devices(2))
    with pytest.raises(ValueError, match="divisible by num_microbatches, got 16 on 3"):
        run(_state(optax.sgd(0.1)), training.shard(_batch(0), 2))


NETWORKS = {
    "transformer": DiT(width=32, depth=2, num_heads=2, patch=2, num_classes=4, rematerialise=True),
    "half precision": DiT(width=32, depth=1, num_heads=2, patch=2, num_classes=4, dtype=jnp.dtype(jnp.bfloat16)),
    "u-net": UNet(width=8, multipliers=(1, 2), blocks_per_level=1, attention=(4,), num_classes=4, dropout=0.1),
}
SIDE = 8


def _picture_loss(network):
    def loss(params, key, example):
        drop_key, dropout_key, loss_key = jax.random.split(key, 3)
        z, y = example
        y = guidance.drop_condition(drop_key, y, 0.25, 4)
        field = lambda x, t, y: network.apply(params, x, t, y, False, rngs={"dropout": dropout_key})  # noqa: E731
        return losses.flow_matching(paths.linear(), field, loss_key, z, y)

    return loss


def _pictures(seed, num_examples=16):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(num_examples, SIDE, SIDE, 3)).astype(np.float32)
    return z, rng.integers(0, 4, num_examples).astype(np.int32)


def _picture_state(network, optimizer):
    """A state whose zero layers are not zero, so that a first step moves everything."""
    params = network.init(jax.random.key(0), jnp.zeros((SIDE, SIDE, 3)), jnp.zeros(()), jnp.zeros((), jnp.int32))
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(2), len(leaves))
    moved = [leaf + 0.05 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return training.init_state(jax.tree.unflatten(structure, moved), optimizer, jax.random.key(1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "optimizer", "tolerance"),
    [
        ("transformer", optax.sgd(0.1), 1e-5),
        ("u-net", optax.sgd(0.1), 1e-5),
        ("transformer", optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)), 1e-3),
        ("u-net", optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)), 1e-3),
        ("half precision", optax.sgd(0.1), 1e-3),
    ],
)
def test_the_image_networks_train_as_under_pmap(name, optimizer, tolerance):
    """Three steps in two microbatches on 8 devices."""
    network, states = NETWORKS[name], []
    step = training.make_step(_picture_loss(network), optimizer, 0.9, num_microbatches=2)
    for make_run in (training.parallel, partial(fsdp.fsdp, least=256)):
        run, state = make_run(step, _devices(8)), _picture_state(network, optimizer)
        for seed in range(3):
            state, metrics = run(state, training.shard(_pictures(seed), 8))
        states.append((state.params, state.ema, metrics))
    _assert_shards_agree(states[1], states[0], tolerance)
    kernels = [leaf for leaf in jax.tree.leaves(states[1][0]) if leaf.size >= 2048]
    assert kernels
    assert all(leaf.addressable_shards[0].data.size == leaf.size // 8 for leaf in kernels)


def _exchanged(compiled):
    """The shapes that the compiled program gathers, transposes or passes on between devices."""
    lines = re.findall(r"= (.*?) (?:all-gather|all-to-all|collective-permute)(?:-start)?\(", compiled.as_text())
    return [tuple(map(int, shape.split(","))) for line in lines for shape in re.findall(r"\w+\[([\d,]+)\]", line)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["transformer", "u-net"])
@pytest.mark.parametrize("num_microbatches", [1, 4])
def test_pictures_stay_on_their_devices(name, num_microbatches):
    """What travels is the state's parts, or vectors of the condition: nothing as large as all pictures' least maps."""
    network, optimizer = NETWORKS[name], optax.sgd(0.1)
    step = training.make_step(_picture_loss(network), optimizer, 0.9, num_microbatches)
    state = jax.eval_shape(lambda: _picture_state(network, optimizer))
    batch = jax.eval_shape(lambda: training.shard(jax.tree.map(jnp.asarray, _pictures(0, 256)), 8))
    compiled = fsdp.program(step, state, batch, least=256).lower(state, batch, None).compile()
    sizes = [int(np.prod(shape)) for shape in _exchanged(compiled)]
    least_map = 256 // num_microbatches * 4 * 4 * 16
    most_weights = max(leaf.size for leaf in jax.tree.leaves(state.params))
    assert most_weights < least_map
    assert 256 < max(sizes) <= max(most_weights, 256 // num_microbatches * 6 * 32)


def _save(folder, state):
    with checkpoints.Writer(folder) as writer:
        writer.save(int(state.step), state, {})


@pytest.mark.parametrize(("before", "after"), [(8, 2), (2, 8), (8, 1)])
def test_a_checkpoint_is_restored_onto_another_number_of_devices(before, after, tmp_path):
    """The same bits, on the shards of the state asked for; a replicated state restores them, too."""
    optimizer = optax.adam(1e-3)
    state, _ = _trained(_sharded, before, training.make_step(_loss, optimizer, 0.9), optimizer, 2)
    _save(tmp_path, state)
    for like in (
        fsdp.shard_state(_state(optimizer), _devices(after), CUT_ALL),
        training.replicate(_state(optimizer), _devices(after)),
    ):
        found = checkpoints.restore(tmp_path, like).state
        for leaf, expected, wanted in zip(*map(jax.tree.leaves, (found, state, like)), strict=True):
            np.testing.assert_array_equal(_plain(leaf), _plain(expected))
            assert leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim)


def test_training_goes_on_from_such_a_checkpoint(tmp_path, step, single):
    """Two steps on 8 devices, two more on 2: the parameters of four on one."""
    expected, _ = single
    state, _ = _trained(_sharded, 8, step, optax.sgd(0.1), 2)
    _save(tmp_path, state)
    run = _sharded(step, _devices(2))
    state = checkpoints.restore(tmp_path, fsdp.shard_state(_state(optax.sgd(0.1)), _devices(2), CUT_ALL)).state
    for batch in _batches(4)[2:]:
        state, _ = run(state, training.shard(batch, 2))
    _assert_shards_agree((state.params, state.ema), (expected.params, expected.ema), 1e-5)
