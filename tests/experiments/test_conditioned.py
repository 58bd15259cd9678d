"""Pictures told by metadata: what is learned, asked for, drawn and measured."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import checkpoints, conditions, data, guidance, paths, solvers, verify
from cfgjax.conditions import Known, Tokens
from experiments.cli.main import UserError
from experiments.config.kinds import ConditionedData
from experiments.config.networks import MLPNetwork
from experiments.config.schema import ADAPTER, Sampling
from experiments.presets.registry import PRESETS
from experiments.run import folder as run_folder
from experiments.run import sources
from experiments.run.continuation import with_source
from experiments.run.fit import fit, prepare
from experiments.run.model import model_of
from experiments.run.restore import restore_field
from experiments.run.train_setup import state_of
from experiments.tasks.objectives import _matching_loss
from experiments.tasks.registry import facts_of, task_of, with_facts
from experiments.tasks.texts import Tokenizer
from tests.experiments.test_resume import final_state
from tests.support import tokenizers, told
from tests.support.commands import assert_one_line, command

ROWS = told.rows()
VOCABULARY = ("a", "blue", "framed", "green", "one", "plain", "red")
EVERYTHING = ConditionedData(Path("mine"), label="label", numbers=("bright", "count"), text="caption")
TRAIN = [row for index, row in enumerate(ROWS) if index % 10 != 9]
TEST = ROWS[9::10]
MODULE = "tests.support.tokenizers"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A folder with the set ``mine``, of which every tenth of 90 pictures is held out, and stored embeddings."""
    folder = tmp_path_factory.mktemp("told")
    told.write_rows(folder / "mine", ROWS)
    np.savez(folder / "mine" / "stored.npz", embeddings=_stored())
    return folder


def _stored():
    return np.random.default_rng(0).normal(size=(len(ROWS), 2)).astype(np.float32)


def _experiment(data_dir, run_dir, settings=EVERYTHING, **changed):
    return dataclasses.replace(
        PRESETS["conditioned_images"][1], run_dir=run_dir, data_dir=data_dir, data=settings, num_steps=2,
        batch_size=16, network=MLPNetwork(16, 8, 1), sampling=Sampling((0.0, 1.0, 3.0), 2, 2), **changed,
    )  # fmt: skip


def _written(experiment, tokenizer=None):
    """The folder of a run as two steps of training leave it."""
    task = task_of(experiment, tokenizer=tokenizer)
    experiment = with_facts(experiment, task)
    experiment.run_dir.mkdir(exist_ok=True)
    run_folder.open_run(experiment)
    with checkpoints.Writer(run_folder.checkpoints_of(experiment.run_dir)) as writer:
        state = state_of(experiment, model_of(experiment, task))
        writer.save(2, state, ADAPTER.dump_python(experiment, mode="json"))
    return experiment.run_dir


@pytest.fixture(scope="module")
def run_dir(data_dir, tmp_path_factory):
    """A run told everything."""
    return _written(_experiment(data_dir, tmp_path_factory.mktemp("run") / "run"))


def _numbers(rows):
    return np.array([[row["bright"], row["count"]] for row in rows], np.float64)


def _ids(text):
    words = "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
    return [1 + VOCABULARY.index(word) for word in words]


def _standardised(numbers):
    own = _numbers(TRAIN)
    return ((numbers - own.mean(axis=0)) / own.std(axis=0)).astype(np.float32)


def _y(label=2, numbers=None, text=None):
    """A condition by hand, null where nothing is given."""
    return {
        "label": jnp.int32(label),
        "numbers": conditions.unknown(jnp.zeros(2)) if numbers is None else conditions.known(_standardised(numbers)),
        "text": conditions.unknown(Tokens(jnp.zeros(4, jnp.int32), jnp.zeros(4, bool)))
        if text is None
        else _text(text),
    }


def _text(text):
    ids = np.zeros(4, np.int32)
    ids[: len(_ids(text))] = _ids(text)
    return conditions.known(Tokens(ids, ids > 0))


def test_y_is_what_the_rows_say(data_dir, tmp_path):
    task = task_of(_experiment(data_dir, tmp_path))
    pixels, y = task.source
    np.testing.assert_array_equal(pixels, [told.pixels(row) for row in TRAIN])
    expected = [_y(("framed", "plain").index(row["label"]), _numbers([row])[0], row["caption"]) for row in TRAIN]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *expected)
    assert jax.tree.structure(y) == jax.tree.structure(stacked)
    jax.tree.map(np.testing.assert_array_equal, y, stacked)
    assert task.num_held_out == len(TEST)
    assert dict(task.learned)["vocabulary"] == VOCABULARY
    np.testing.assert_allclose(task.learned["mean"], _numbers(TRAIN).mean(axis=0), rtol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        EVERYTHING,
        dataclasses.replace(EVERYTHING, drop_each=0.0),
        ConditionedData(Path("mine"), text="caption"),
        ConditionedData(Path("mine"), numbers=("bright",), label="label", drop_each=0.3),
        ConditionedData(Path("mine"), embeddings=Path("stored.npz")),
    ],
)
def test_what_training_drops_is_what_sampling_uses(settings, data_dir, tmp_path):
    experiment = _experiment(data_dir, tmp_path, settings)
    task, rate = task_of(experiment), experiment.label_drop_rate
    null, (_, said) = task.conditions.null, task.source
    rates = rate if task.conditions.rates is None else task.conditions.rates
    assert (task.conditions.rates is None) == (settings.drop_each == 0 or len(null) == 1)

    def drop(key, y):
        return guidance.drop_condition(key, y, rates, null, rate_of_all=rate)

    def y_of(key):
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[jax.random.randint(key, (), 0, len(TRAIN))], said)

    verify.dropping(drop, null, rates, y_of, rate).require()


def test_the_loss_drops_each_by_its_rate(data_dir, tmp_path):
    settings = dataclasses.replace(EVERYTHING, drop_each=0.4)
    experiment = dataclasses.replace(_experiment(data_dir, tmp_path, settings), label_drop_rate=0.2)
    task = task_of(experiment)

    def given(path, prediction, key, z, y, time_density):
        return jnp.stack([y["label"] < 2, y["numbers"].is_known, y["text"].is_known])

    loss = _matching_loss(given, experiment, task, None, paths.linear(), True)
    one = jax.tree.map(lambda leaf: leaf[0], task.source)
    found = np.asarray(jax.vmap(lambda key: loss({}, key, one))(jax.random.split(jax.random.key(0), 4000)))
    kept, none = 0.8 * 0.6, 0.2 + 0.8 * 0.4**3
    assert np.all(abs(found.mean(axis=0) - kept) < 4 * np.sqrt(kept * (1 - kept) / 4000))
    assert abs((~found.any(axis=1)).mean() - none) < 4 * np.sqrt(none * (1 - none) / 4000)


def test_sampling_knows_by_the_config_what_training_read(run_dir, data_dir, tmp_path):
    experiment = run_folder.read_config(run_dir)
    elsewhere = dataclasses.replace(experiment, data_dir=tmp_path / "nowhere")
    read, facts = task_of(_experiment(data_dir, tmp_path)).conditions, facts_of(elsewhere).conditions
    for each in ("null", "rows", "texts"):
        assert jax.tree.structure(getattr(read, each)) == jax.tree.structure(getattr(facts, each))
        jax.tree.map(np.testing.assert_array_equal, getattr(read, each), getattr(facts, each))
    assert facts.texts[0] == "framed, A framed, blue one, bright 2.25, count 2"


ASKED = {
    "a label": (["--labels", "plain"], [_y(1)], None),
    "a prompt": (["--prompt", "Red one"], [_y(text="red one")], None),
    "numbers": (["--properties", "count=3"], [_y(numbers=[_numbers(TRAIN)[:, 0].mean(), 3])], None),
    "all": (
        ["--labels", "framed", "plain", "--prompt", "a blue one", "--properties", "bright=1,count=2"],
        [_y(0, [1, 2], "a blue one"), _y(1, [1, 2], "a blue one")],
        None,
    ),
    "a negative prompt": (
        ["--labels", "0", "--prompt", "a blue one", "--negative", "red"],
        [_y(0, None, "a blue one")],
        _y(0, None, "red"),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("options", "ys", "negative"), ASKED.values(), ids=ASKED)
def test_samples_are_those_of_the_library_s_own_composition(options, ys, negative, run_dir, tmp_path):
    out = tmp_path / "samples.npz"
    done = command("sample", run_dir, *options, "--scale", 3, "--num-steps", 4, "--out", out)
    assert done.returncode == 0, done.stderr
    pair = guidance.pair(restore_field(run_dir).field, _y() if negative is None else negative)

    @jax.jit
    def drawn(index, y):
        noise_key, solver_key = jax.random.split(jax.random.fold_in(jax.random.key(0), index))
        guided = guidance.given(guidance.extrapolate(pair, 3.0), y)
        noise = jax.random.normal(noise_key, (8, 8, 3))
        return solvers.integrate(solvers.heun(guided), solver_key, noise, np.linspace(0, 1, 5))

    found = np.load(out)
    assert len(found["x"]) == len(ys)
    for index, y in enumerate(ys):
        np.testing.assert_allclose(found["x"][index], drawn(index, y), atol=1e-4)
    np.testing.assert_array_equal(found["label"], [y["label"] for y in ys])


def test_what_was_asked_is_stored_and_names_the_files(run_dir, tmp_path):
    out = tmp_path / "samples.npz"
    asked = ["--prompt", "red one", "blue!", "--properties", "bright=1.5,count=4", "--num-steps", 2]
    assert command("sample", run_dir, *asked, "--out", out).returncode == 0
    found = np.load(out)
    assert found["text"].tolist() == ["red one", "blue"]
    np.testing.assert_allclose(found["numbers"], [[1.5, 4]] * 2, rtol=1e-5)
    assert found["label"].tolist() == [2, 2]
    assert found["arr_0"].shape == (2, 8, 8, 3)
    folder = tmp_path / "each"
    assert (
        command("sample", run_dir, "--labels", "plain", "null", "--num-steps", 2, "--out", f"{folder}/").returncode == 0
    )
    assert sorted(file.name for file in folder.iterdir()) == ["000-plain.png", "001-null.png"]


BAD = {
    "an unknown word": (["--prompt", "a rad one"], "prompt has the unknown word 'rad': the nearest known are red"),
    "a long prompt": (["--prompt", "a red one a red one"], "prompt must have 1 to 4 tokens, got 6"),
    "an empty prompt": (["--prompt", "..."], "prompt must have 1 to 4 tokens, got 0"),
    "an unknown class": (
        ["--labels", "dotted"],
        "labels must be one of framed, plain, or in 0..2 (2 is null), got dot",
    ),
    "an unknown number": (
        ["--properties", "size=3"],
        "properties must be NAME=VALUE,... of bright, count, got 'size=3'",
    ),
    "no number": (["--properties", "count=many"], "properties must give a number for count, got 'many'"),
    "an unknown negative": (["--negative", "rod"], "negative has the unknown word 'rod': the nearest known are red"),
    "a tokenizer": (["--tokenizer", f"{MODULE}:ids"], "tokenizer is for a run whose texts were read by one"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_conditions_that_cannot_be_are_refused_in_one_line(arguments, message, run_dir, tmp_path):
    assert_one_line(command("sample", run_dir, *arguments, "--out", tmp_path / "samples.png"), message)


def test_a_part_is_refused_where_all_were_dropped_together_alone(data_dir, tmp_path):
    folder = _written(_experiment(data_dir, tmp_path / "run", dataclasses.replace(EVERYTHING, drop_each=0.0)))
    out = ["--num-steps", 2, "--out", tmp_path / "samples.png"]
    done = command("sample", folder, "--prompt", "red", *out)
    assert_one_line(done, "--prompt alone was never learned: conditions were dropped together only (data.drop_each 0); "
                    "give --labels and --properties, too")  # fmt: skip
    everything = ["--prompt", "red", "--labels", "0", "--properties", "count=1"]
    assert command("sample", folder, *everything, *out).returncode == 0


def test_a_part_that_the_run_is_not_told_is_refused(data_dir, tmp_path):
    folder = _written(_experiment(data_dir, tmp_path / "run", ConditionedData(Path("mine"), numbers=("count",))))
    done = command("sample", folder, "--labels", "plain", "--out", tmp_path / "samples.png")
    assert_one_line(done, "labels is nothing that this run's field is told; give --properties")


TRAINED = ["--run-dir", "run", "--num-steps", "2", "--network.width", "16"]
WRONG = {
    "nothing": ([], "data.label, data.numbers, data.text or data.embeddings must say what pictures are told by"),
    "no such column": (
        ["--data.text", "title"],
        "line 1: it has no column 'title', which is asked for, only 'caption',",
    ),
    "numbers of text": (["--data.numbers", "caption"], "data.numbers must be columns of numbers, and 'caption' in "),
    "text of numbers": (["--data.text", "count"], "data.text must be a column of text, and 'count' in "),
    "a label of numbers": (
        ["--data.label", "bright"],
        "'bright' must be of integers or names to be a class, got float",
    ),
    "a column twice": (["--data.text", "caption", "--data.label", "caption"], "column 'caption' is asked for twice"),
    "texts and embeddings": (
        ["--data.text", "caption", "--data.embeddings", "stored.npz"],
        "data.embeddings are in the place of data.text and data.tokenizer; give one of them",
    ),
    "no embeddings": (["--data.embeddings", "none.npz"], "mine/none.npz does not exist"),
    "a link out": (["--data.folder", "out", "--data.text", "caption"], "out is a link that leads out of"),
    "no folder": (
        ["--data.folder", "yours", "--data.text", "caption"],
        "yours does not exist; run: python -m experiments",
    ),
    "another shape": (
        ["--data.text", "caption", "--data.shape", "4", "4", "3"],
        "data.shape is (4, 4, 3), but the data s",
    ),
    "a tokenizer of nothing": (
        ["--data.label", "label", "--data.tokenizer", "a:b"],
        "data.tokenizer must be MODULE:FUN",
    ),
    "no module": (
        ["--data.text", "caption", "--data.tokenizer", "nowhere:read"],
        "data.tokenizer must be MODULE:FUNCTI",
    ),
    "no function": (
        ["--data.text", "caption", "--data.tokenizer", f"{MODULE}:NUMBER"],
        "data.tokenizer must be a function, got 'tests.support.tokenizers:NUMBER', a int",
    ),
    "no tokens": (
        ["--data.text", "caption", "--data.tokenizer", f"{MODULE}:letters"],
        "tokenizer tests.support.tokenizers:letters must give integers [n] in",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_a_run_that_cannot_be_is_refused_in_one_line(arguments, message, data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if not (data_dir / "out").exists():
        (data_dir / "out").symlink_to(tmp_path)
    folder = [] if "--data.folder" in arguments else ["--data.folder", "mine"]
    done = command("train", "conditioned_images", "--data-dir", data_dir, *folder, *arguments, *TRAINED)
    assert_one_line(done, message)


def test_a_constant_column_is_refused(tmp_path):
    told.write_rows(tmp_path / "data" / "mine", [row | {"count": 3} for row in ROWS])
    settings = dataclasses.replace(EVERYTHING, numbers=("count",))
    done = command("train", "conditioned_images", "--data-dir", tmp_path / "data", "--data.folder", "mine",
                   "--data.numbers", *settings.numbers, "--run-dir", tmp_path / "run")  # fmt: skip
    assert_one_line(done, "data.numbers: 'count' is the same for all training pictures, and tells nothing")


SMALL = [
    "--batch-size", "16", "--network.width", "16", "--network.depth", "1", "--network.num-heads", "4",
    "--save-every", 2, "--sampling.num-steps", 2, "--sampling.num-per-class", 2, "--sampling.scales", 0, 2,
]  # fmt: skip
TOLD = ["--data.folder", "mine", "--data.label", "label", "--data.numbers", "bright", "--data.text", "caption"]


@pytest.fixture(scope="module")
def finished(data_dir, tmp_path_factory):
    """The folder of a finished run, and what its command line was."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    arguments = ["conditioned_images", "--data-dir", data_dir, *TOLD, *SMALL, "--num-steps", 4]
    done = command("train", *arguments, "--run-dir", folder)
    assert done.returncode == 0, done.stderr
    return folder, arguments


def test_a_run_is_measured_by_its_classes_and_shows_held_out_conditions(finished, tmp_path):
    folder, _ = finished
    metrics = data.parse_json(data.read_bounded(folder / "metrics.json", 10**6))
    assert [(row["solver"], row["scale"]) for row in metrics["samples"]] == [
        (solver, scale) for solver in ("heun", "euler_maruyama") for scale in (0.0, 2.0)
    ]
    assert all(0 <= row["recognised"] <= 1 for row in metrics["samples"])
    found = np.load(folder / "samples-heun.npz")
    assert found["samples"].shape == (2, len(TEST), 2, 8, 8, 3)
    words = [" ".join(VOCABULARY[token - 1] for token in _ids(row["caption"])) for row in TEST]
    assert found["text"].tolist() == words
    np.testing.assert_allclose(found["numbers"][:, 0], [row["bright"] for row in TEST], rtol=1e-5)
    assert (folder / "samples.png").is_file()
    done = command("evaluate", folder, "--scales", 1, 3, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "metrics.json", "samples.png", "by_scale.npz", "samples-heun.npz", "samples-euler_maruyama.npz",
    }  # fmt: skip


@pytest.mark.slow
def test_a_run_stopped_and_resumed_ends_bit_equal(finished, tmp_path):
    folder, arguments = finished
    again = tmp_path / "again"
    assert command("train", *arguments, "--run-dir", again).returncode == 0
    last = run_folder.checkpoints_of(again) / "4"
    for file in sorted(last.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    last.rmdir()
    done = command("train", *arguments, "--run-dir", again)
    assert f"resuming {again} at step 2 of 4" in done.stdout
    jax.tree.map(np.testing.assert_array_equal, final_state(again), final_state(folder))


@pytest.mark.slow
def test_other_data_are_named_and_once_accepted_read_by_the_run_s_own_words_and_spread(tmp_path):
    rows = told.rows()
    told.write_rows(tmp_path / "data" / "mine", rows)
    arguments = ["conditioned_images", "--data-dir", tmp_path / "data", *TOLD, *SMALL, "--run-dir", tmp_path / "run"]
    assert command("train", *arguments, "--num-steps", 2).returncode == 0
    before = run_folder.read_config(tmp_path / "run").data
    moved = tmp_path / "other"
    told.write_rows(moved / "mine", [row | {"bright": row["bright"] + 1} for row in rows])
    arguments[2] = moved
    lengthened = ["--num-steps", 4, "--accept", "num_steps"]
    assert_one_line(command("train", *arguments, *lengthened), f"the training data in {moved} are not those that")
    done = command("train", *arguments, *lengthened, "data")
    assert done.returncode == 0, done.stderr
    after = run_folder.read_config(tmp_path / "run").data
    assert (after.mean, after.vocabulary, after.examples) == (before.mean, before.vocabulary, before.examples)
    assert after.train_digest != before.train_digest


def test_stored_embeddings_are_asked_for_by_an_encoder_alone(data_dir, tmp_path):
    settings = ConditionedData(Path("mine"), embeddings=Path("stored.npz"))
    experiment = _experiment(data_dir, tmp_path / "run", settings)
    task = task_of(experiment)
    kept = [index for index in range(len(ROWS)) if index % 10 != 9]
    np.testing.assert_array_equal(task.source[1]["text"].value.values, _stored()[kept][:, np.newaxis])
    np.testing.assert_array_equal(task.conditions.rows["text"].value.values, _stored()[9::10][:, np.newaxis])
    folder = _written(experiment)
    out = ["--num-steps", 2, "--out", tmp_path / "samples.npz"]
    assert_one_line(
        command("sample", folder, "--prompt", "hi", *out),
        "prompt needs a --tokenizer MODULE:FUNCTION, text -> vectors of width 2: this run learned from stored",
    )
    for name, arguments in (("sample", out), ("diagnose", []), ("solver_error", ["--num-samples", 1])):
        assert_one_line(command(name, folder, *arguments), "what this run draws unasked is of stored embeddings")
    wrong = ["--prompt", "hi", "--tokenizer", f"{MODULE}:other_width"]
    assert_one_line(command("sample", folder, *wrong, *out), "prompt must be read as vectors of width 2, as this run's")
    done = command("sample", folder, "--prompt", "eh?", "--tokenizer", f"{MODULE}:one_vector", *out)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "samples.npz")
    np.testing.assert_array_equal(found["text_tokens"], [[[3, 1]]])


def test_of_a_run_of_other_words_the_embedding_is_not_taken_and_it_is_not_led_away_from(run_dir, data_dir, tmp_path):
    """Of as many words: each row of the table would mean another one."""
    rows = [row | {"caption": row["caption"].replace("one", "zebra")} for row in ROWS]
    told.write_rows(tmp_path / "mine", rows)
    experiment = _experiment(tmp_path, tmp_path / "other")
    other = _written(experiment)
    prompt = ["--prompt", "red", "--num-steps", 2, "--out", tmp_path / "samples.npz"]
    assert_one_line(
        command("sample", run_dir, *prompt, "--worse", other), "worse must be a run on the same kind of data"
    )
    began = with_source(dataclasses.replace(experiment, run_dir=tmp_path / "tuned"), run_dir, "ema")
    prepared = prepare(began)
    started, params = prepared.experiment.started_from, prepared.state.params
    assert not started.knows_labels
    source = sources.source_of(started, prepared.experiment, prepared.task)
    plan = sources.what_is_taken("it", source, prepared.experiment, prepared.task, params)
    assert {name.split("/")[0] for name in plan.new} == {"conditioning"}
    assert not any(name.startswith("conditioning") for name in plan.taken)
    assert not (tmp_path / "tuned").exists()


def test_a_column_called_label_is_a_text_where_it_is_asked_for_as_one(data_dir, tmp_path):
    task = task_of(_experiment(data_dir, tmp_path, ConditionedData(Path("mine"), text="label")))
    assert dict(task.learned)["vocabulary"] == ("framed", "plain")
    expected = [1 + (row["label"] == "plain") for row in TRAIN]
    np.testing.assert_array_equal(task.source[1]["text"].value.values[:, 0], expected)
    with pytest.raises(UserError, match=r"data.numbers must be columns of numbers, and 'label' in .* holds text"):
        task_of(_experiment(data_dir, tmp_path, ConditionedData(Path("mine"), numbers=("label",))))


@pytest.mark.parametrize("name", ["ids", "vectors"])
def test_a_tokenizer_of_the_user_s_reads_texts_and_prompts(name, data_dir, tmp_path):
    function, read = Tokenizer(f"{MODULE}:{name}", getattr(tokenizers, name)), []
    settings = ConditionedData(Path("mine"), text="caption", tokenizer=function.name)
    counted = function._replace(function=lambda text: read.append(text) or function.function(text))
    task = task_of(_experiment(data_dir, tmp_path, settings), tokenizer=counted)
    assert sorted(read) == sorted({row["caption"] for row in ROWS})
    tokens = task.source[1]["text"].value
    for row, values, mask in zip(TRAIN, tokens.values, tokens.mask, strict=True):
        expected = function.function(row["caption"])
        np.testing.assert_array_equal(values[: len(expected)], expected)
        np.testing.assert_array_equal(mask, np.arange(4) < len(expected))
    folder = _written(_experiment(data_dir, tmp_path / "run", settings), function)
    out = ["--num-steps", 2, "--out", tmp_path / "samples.npz"]
    done = command("sample", folder, "--prompt", "a red one", "--tokenizer", function.name, *out)
    assert done.returncode == 0, done.stderr
    expected = function.function("a red one")
    np.testing.assert_array_equal(np.load(tmp_path / "samples.npz")["text_tokens"][0, : len(expected)], expected)


def test_no_code_runs_because_a_config_names_it(data_dir, tmp_path, monkeypatch):
    """Its import would leave a mark; only the command line's own option makes it."""
    monkeypatch.syspath_prepend(tmp_path)
    code = (
        "import pathlib\npathlib.Path(__file__).with_name('mark').touch()\nfrom tests.support.tokenizers import ids\n"
    )
    (tmp_path / "planted.py").write_text(code)
    settings = ConditionedData(Path("mine"), text="caption", tokenizer="planted:ids")
    function = Tokenizer("planted:ids", tokenizers.ids)
    folder = _written(_experiment(data_dir, tmp_path / "run", settings), function)
    named = "tokenizer must be given: the texts of"
    assert_one_line(command("sample", folder, "--prompt", "red", "--out", tmp_path / "samples.png"), named)
    assert_one_line(command("evaluate", folder), "--tokenizer planted:ids runs it")
    assert_one_line(command("diagnose", folder), named)
    assert_one_line(command("solver_error", folder), named)
    assert restore_field(folder).task.conditions.texts[0] == "A framed, blue one, its text not read"
    with pytest.raises(UserError, match=r"data.text is read by planted:ids, which only the command line may name"):
        fit(_experiment(data_dir, tmp_path / "fit", settings))
    done = command("train", "conditioned_images", "--data-dir", data_dir, "--data.folder", "mine", "--data.text",
                   "caption", *SMALL, "--num-steps", 2, "--run-dir", folder)  # fmt: skip
    assert done.returncode == 2
    assert not (tmp_path / "mark").exists()
    asked = ["--prompt", "red", "--tokenizer", "planted:ids", "--num-steps", 2, "--out", tmp_path / "samples.png"]
    assert command("sample", folder, *asked).returncode == 0
    assert (tmp_path / "mark").exists()


def test_facts_that_do_not_fit_each_other_are_refused(run_dir, tmp_path):
    config = json.loads((run_dir / "config.json").read_text())
    for changed, message in (
        ({"mean": [1.0]}, "data.mean, data.deviation and data.examples must have a number for each of data.numbers"),
        ({"deviation": [1.0, 0.0]}, "data.mean, data.deviation and data.examples must have a number"),
        ({"num_classes": 1}, "data.examples must have labels under data.num_classes 1"),
    ):
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config | {"data": config["data"] | changed}))
        assert_one_line(command("sample", folder, "--out", tmp_path / "samples.png"), message)


def test_a_set_with_texts_that_say_nothing_has_them_unknown(tmp_path):
    folder = told.write_rows(tmp_path / "mine", ROWS)
    rows = [ROWS[0] | {"caption": "..."}, *ROWS[1:]]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = task_of(_experiment(tmp_path, tmp_path, ConditionedData(Path("mine"), text="caption"))).source[1]["text"]
    assert isinstance(text, Known)
    np.testing.assert_array_equal(text.is_known, np.arange(len(TRAIN)) > 0)
