"""Fine-tuning: what a new run takes of another one or of a file, what it draws, and what of it stays as it is."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cfgjax import checkpoints, training
from experiments.cli.main import UserError
from experiments.config.history import StartedFrom
from experiments.config.kinds import MixtureData
from experiments.config.networks import DiTNetwork, MLPNetwork, UNetNetwork
from experiments.config.renamed import with_older_names
from experiments.config.schema import ADAPTER, Optimizer, Sampling
from experiments.presets.registry import PRESETS
from experiments.run import continuation, sources
from experiments.run import folder as run_folder
from experiments.run.fit import fit
from experiments.run.model import model_of
from experiments.run.parts import flatten, folded, frozen_of, meant
from experiments.run.train_setup import optimizer_of, state_of, step_of, train_setup_of
from experiments.run.trained_labels import knows_labels, knows_null
from experiments.tasks.registry import facts_of, task_of
from tests.experiments.test_resume import final_state

LABELS = "LabelEmbedding_0/Embed_0/embedding"


def _short(run_dir, num_steps=4, **changes):
    settings = {
        "run_dir": run_dir, "num_steps": num_steps, "save_every": 2, "log_every": 1, "batch_size": 16,
        "network": MLPNetwork(8, 2, 1), "sampling": Sampling((1.0,), 2, 2),
        "optimizer": Optimizer(1e-2, 0, clip_norm=0.1, weight_decay=0.5, average_widths=(0.1,)),
    }  # fmt: skip
    return dataclasses.replace(PRESETS["mixture"][1], **(settings | changes))


def _shapes(experiment):
    return jax.eval_shape(model_of(experiment, facts_of(experiment)).init, jax.random.key(0))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The folder of a run at step 6, not trained: parameters, average and its further one are all different."""
    experiment = _short(tmp_path_factory.mktemp("source") / "run", 6)
    run_folder.make_folder("run_dir", experiment.run_dir)
    run_folder.open_run(experiment)
    state = state_of(experiment, model_of(experiment, facts_of(experiment)))
    state = state._replace(step=jnp.int32(6), ema=jax.tree.map(lambda leaf: leaf + 1, state.ema))
    with checkpoints.Writer(run_folder.checkpoints_of(experiment.run_dir)) as writer:
        writer.save(6, state, ADAPTER.dump_python(experiment, mode="json"))
    return experiment.run_dir


def _begun(experiment):
    """The experiment that knows its source, and the state that it begins with."""
    facts = facts_of(experiment)
    experiment = continuation.with_compatible_source(experiment, facts, _shapes(experiment))
    return experiment, continuation.begun(state_of(experiment, model_of(experiment, facts)), experiment, facts)


def _assert_bits(found, expected):
    found, expected = flatten(found), flatten(expected)
    assert found.keys() == expected.keys()
    for name, leaf in found.items():
        np.testing.assert_array_equal(np.asarray(leaf).view(np.uint32), np.asarray(expected[name]).view(np.uint32))


@pytest.mark.parametrize("which", ["ema", "params"])
def test_a_run_of_the_same_begins_with_every_array_and_no_other(which, source, tmp_path):
    asked = _short(tmp_path / "new", seed=5)
    experiment, state = _begun(continuation.with_source(asked, source, which))
    expected = checkpoints.restore_params(run_folder.checkpoints_of(source), 6, which).state
    for tree in (state.params, state.ema, *state.averages):
        _assert_bits(tree, expected)
    fresh = state_of(asked, model_of(asked, facts_of(asked)))
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, fresh.opt_state)
    assert jnp.array_equal(jax.random.key_data(state.key), jax.random.key_data(fresh.key))
    assert knows_null(experiment)
    assert knows_labels(experiment)


def test_parameters_alone_begin_a_run_and_are_none_to_go_on_with(source, tmp_path):
    found = checkpoints.restore_params(run_folder.checkpoints_of(source), 6, "params")
    weights = _short(tmp_path, preset="published_any")
    run_folder.open_run(weights)
    with checkpoints.Writer(run_folder.checkpoints_of(tmp_path)) as writer:
        writer.save(0, {"params": found.state}, found.metadata)
    message = (
        r"holds parameters alone \(published_any\), and no training to go on with: begin a new run with them by --from"
    )
    with pytest.raises(UserError, match=message):
        continuation.with_past(_short(tmp_path))
    _, state = _begun(continuation.with_source(_short(tmp_path / "new"), tmp_path, "ema"))
    _assert_bits(state.params, found.state)
    _assert_bits(state.ema, found.state)


def test_of_other_labels_the_embedding_alone_is_drawn_by_the_seed(source, tmp_path, capsys):
    asked = _short(tmp_path / "new", seed=5, data=MixtureData(5), label_drop_rate=0.0)
    experiment, state = _begun(continuation.with_source(asked, source, "ema"))
    old = flatten(checkpoints.restore_params(run_folder.checkpoints_of(source), 6).state)
    fresh = flatten(state_of(asked, model_of(asked, facts_of(asked))).params)
    for tree in (state.params, state.ema, *state.averages):
        for name, leaf in flatten(tree).items():
            np.testing.assert_array_equal(leaf, fresh[name] if name == LABELS else old[name])
    assert not knows_null(experiment)
    said = capsys.readouterr().out
    count = sum(leaf.size for name, leaf in old.items() if name != LABELS)
    assert f"taken {count} parameters: Dense_{{0..5}}, TimeEmbedding_0\n" in said
    assert "new, drawn by the seed: 12 parameters: LabelEmbedding_0\n" in said


def _digits(preset, network):
    return dataclasses.replace(PRESETS[preset][1], network=network)


CLASSIFIER = _digits("fashion_mnist_classifier", UNetNetwork(8, (1,), 1, (), patch=4))
TOLD = {
    (kind, network): _digits(kind, settings)
    for kind in ("digits", "measured_digits", "described_digits")
    for network, settings in (("mlp", MLPNetwork(8, 4, 1)), ("dit", DiTNetwork(8, 2, 2, 2)))
}
SEVEN = dataclasses.replace(CLASSIFIER, data=dataclasses.replace(CLASSIFIER.data, num_classes=7))
CHANGES = {
    "labels": (_short("a"), _short("b"), set()),
    "number": (_short("a"), _short("b", data=MixtureData(5)), {"LabelEmbedding_0"}),
    "numbers": (TOLD["digits", "mlp"], TOLD["measured_digits", "mlp"], {"conditioning"}),
    "sentences": (
        TOLD["measured_digits", "dit"],
        TOLD["described_digits", "dit"],
        {"conditioning", "DiTBlock_{0..1}/CrossAttention_0"},
    ),
    "back": (TOLD["described_digits", "dit"], TOLD["digits", "dit"], {"LabelEmbedding_0"}),
    "classifier": (CLASSIFIER, SEVEN, {"Dense_0"}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_embeds_labels_and_conditions_is_new_where_these_are_others(name, tmp_path):
    before, after, expected = CHANGES[name]
    run_folder.open_run(dataclasses.replace(before, run_dir=tmp_path))
    started, facts, params = StartedFrom(str(tmp_path), "ema", 1, True, True), facts_of(after), _shapes(after)
    plan = sources.what_is_taken("it", sources.source_of(started, after, facts), after, facts, params)
    assert set(folded(sorted(plan.new), flatten(params))) == expected
    assert plan.new | plan.taken == flatten(params).keys()
    assert not plan.new & plan.taken


def test_what_is_new_and_frozen_is_warned_of(source, tmp_path, capsys):
    asked = _short(tmp_path / "new", data=MixtureData(5), freeze=("LabelEmbedding_0", "Dense_0"))
    experiment = continuation.with_source(asked, source, "ema")
    continuation.with_compatible_source(experiment, facts_of(experiment), _shapes(experiment))
    assert "freeze leaves as the seed draws them 12 parameters: LabelEmbedding_0\n" in capsys.readouterr().err
    same = continuation.with_source(dataclasses.replace(asked, data=MixtureData()), source, "ema")
    continuation.with_compatible_source(same, facts_of(same), _shapes(same))
    assert not capsys.readouterr().err


def test_an_array_of_another_shape_is_refused_by_name(tmp_path):
    experiment = _short(tmp_path)
    run_folder.open_run(experiment)
    facts, params = facts_of(experiment), _shapes(experiment)
    found = sources.source_of(StartedFrom(str(tmp_path), "ema", 1, True, True), experiment, facts)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*leaf.shape[:-1], leaf.shape[-1] + 1), leaf.dtype), params)
    with pytest.raises(
        UserError, match=r"from it: its \w+/bias has the shape \(\d+,\), this run's \(\d+,\); only what"
    ):
        sources.what_is_taken("it", found._replace(like=like), experiment, facts, params)


NAMES = [f"Block_{index}/{inner}/{leaf}" for index in range(12) for inner in ("A_0", "A_1") for leaf in ("w", "b")]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["Block_1"], ["Block_1"]),
        (["Block_*"], ["Block_{0..11}"]),
        (["Block_*/A_1"], ["Block_{0..11}/A_1"]),
        (["Block_0/A_0/w", "Block_0/A_0/b"], ["Block_0/A_0"]),
        (["Block_3", "Block_5", "Block_4", "Block_7/A_0"], ["Block_{3..5}", "Block_7/A_0"]),
        (["*/w"], ["Block_{0..11}/A_{0..1}/w"]),
    ],
)
def test_a_name_means_what_lies_under_it_and_is_told_in_few_words(patterns, expected):
    assert folded([name for name in NAMES if name in meant(patterns, NAMES, "freeze")], NAMES) == expected


def test_names_of_nothing_are_refused_with_the_nearest(tmp_path):
    for freeze, message in (
        (("Dens_1",), r"freeze 'Dens_1' is no part of this network; near it: Dense_1, "),
        (("Dense",), r"freeze 'Dense' is no part"),
        (
            ("Dense_0", "zzz"),
            r"freeze 'zzz' is no part of this network; near it: Dense_\{0..5\}, LabelEmbedding_0, Time",
        ),
        (("*",), r"freeze \* leaves no parameter to train"),
    ):
        experiment = _short(tmp_path, freeze=freeze)
        with pytest.raises(UserError, match=message):
            frozen_of(experiment, _shapes(experiment))


@pytest.mark.slow
def test_all_but_one_part_frozen_is_the_training_of_that_part_by_hand(tmp_path):
    """By jax.grad of the mean loss and the run's optimizer, on the arrays of that part alone."""
    experiment = _short(tmp_path, freeze=("Dense_*", "TimeEmbedding_0"))
    task = task_of(experiment)
    model = model_of(experiment, task)
    setup, start = train_setup_of(experiment, task, model), state_of(experiment, model)
    plain = dataclasses.replace(experiment, freeze=())
    loss, optimizer = train_setup_of(plain, task, model).loss, optimizer_of(plain)
    step, state = jax.jit(step_of(experiment, setup)), start
    table, opt_state = flatten(start.params)[LABELS], optimizer.init(flatten(start.params)[LABELS])

    @jax.jit
    def gradient(table, keys, examples):
        inner = start.params["params"] | {"LabelEmbedding_0": {"Embed_0": {"embedding": table}}}
        return jnp.mean(jax.vmap(loss, (None, 0, 0))({"params": inner}, keys, examples))

    for index, batch in enumerate(task.batches(range(3))):
        state, _ = step(state, batch, task.source)
        examples = batch if task.source is None else jax.tree.map(lambda leaf: leaf[batch], task.source)  # noqa: B023
        keys = training.example_keys(start.key, index, experiment.batch_size)
        updates, opt_state = optimizer.update(jax.grad(gradient)(table, keys, examples), opt_state, table)
        table = optax.apply_updates(table, updates)
    np.testing.assert_allclose(flatten(state.params)[LABELS], table, rtol=1e-5, atol=1e-7)
    assert float(jnp.max(jnp.abs(table - flatten(start.params)[LABELS]))) > 1e-3
    for tree in (state.params, state.ema, *state.averages):
        _assert_bits({**flatten(tree), LABELS: 0.0 * table}, {**flatten(start.params), LABELS: 0.0 * table})
    moments = [leaf.shape for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]
    assert moments == [table.shape] * 2


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["replicated", "sharded"])
def test_frozen_parts_are_those_of_the_source_to_the_last_step_and_over_a_resume(placement, source, tmp_path):
    asked = _short(tmp_path / "new", data=MixtureData(5), freeze=("Dense_*",), placement=placement)
    fit(continuation.with_source(asked, source, "ema"))
    whole = final_state(tmp_path / "new")
    checkpoints.quarantine(run_folder.checkpoints_of(tmp_path / "new"), {4: ""}, tmp_path / "aside")
    fit(asked)
    state = final_state(tmp_path / "new")
    jax.tree.map(np.testing.assert_array_equal, state, whole)
    old = flatten(checkpoints.restore_params(run_folder.checkpoints_of(source), 6).state)
    for tree in map(flatten, (state.params, state.ema, *state.averages)):
        for name in (name for name in old if name != LABELS):
            assert np.array_equal(tree[name], old[name]) == name.startswith("Dense_")
    with pytest.raises(UserError, match=r"holds a run with freeze = \('Dense_\*',\), not \(\); pass --run-dir"):
        fit(dataclasses.replace(asked, freeze=()))


def test_older_configs_read_and_count_as_they_did(tmp_path):
    started = StartedFrom("runs/other", "ema", 3, True, True)
    experiment = _short(tmp_path, started_from=started)
    run_folder.open_run(experiment)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["freeze"], config["started_from"]["kind"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert run_folder.read_config(tmp_path) == experiment
    counted = with_older_names(run_folder.settings_that_count(experiment))
    assert "freeze" not in counted
    assert "started_from.kind" not in counted
    frozen = with_older_names(run_folder.settings_that_count(dataclasses.replace(experiment, freeze=("Dense_0",))))
    assert frozen == counted | {"freeze": ("Dense_0",)}
