"""Digits told by properties and by sentences: what is learned, asked for, drawn and measured."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import checkpoints, conditions, guidance, paths, solvers, verify
from cfgjax.data import parse_json, read_bounded, sentences
from cfgjax.data.described import CLASSES, WORDS, thresholds_of
from experiments.config.networks import MLPNetwork
from experiments.config.samplers import classifier_free
from experiments.config.schema import ADAPTER, Sampling
from experiments.evaluation import described, measured
from experiments.evaluation.feature_classifier import FeatureClassifier, class_accuracy
from experiments.evaluation.options import EvaluationOptions
from experiments.presets.registry import PRESETS
from experiments.run import folder as run_folder
from experiments.run.continuation import with_source
from experiments.run.fit import prepare
from experiments.run.model import model_of
from experiments.run.restore import restore_field
from experiments.run.train_setup import state_of
from experiments.tasks import digits
from experiments.tasks.described import descriptions_of
from experiments.tasks.measured import conditions_of, spread_of
from experiments.tasks.registry import facts_of, task_of, with_facts
from tests.support.commands import assert_one_line, command

NAMES = ("measured_digits", "described_digits")
MEASURED, DESCRIBED = (PRESETS[name][1].data for name in NAMES)


def _experiment(name, run_dir, data_dir):
    return dataclasses.replace(
        PRESETS[name][1], run_dir=run_dir, data_dir=data_dir, num_steps=2, batch_size=16,
        network=MLPNetwork(16, 8, 1), sampling=Sampling((0.0, 1.0, 3.0), 2, 2),
    )  # fmt: skip


@pytest.fixture(scope="module")
def run_dirs(tmp_path_factory, data_dir):
    """Folders of runs as two steps of training leave them, by their presets' names."""
    folders = {}
    for name in NAMES:
        folder = tmp_path_factory.mktemp(name)
        experiment = _experiment(name, folder, data_dir)
        task = task_of(experiment)
        experiment = with_facts(experiment, task)
        run_folder.open_run(experiment)
        with checkpoints.Writer(run_folder.checkpoints_of(folder)) as writer:
            state = state_of(experiment, model_of(experiment, task))
            writer.save(2, state, ADAPTER.dump_python(experiment, mode="json"))
        folders[name] = folder
    return folders


@pytest.mark.parametrize("name", NAMES)
def test_what_training_drops_is_what_sampling_uses(name, data_dir, tmp_path):
    task = task_of(_experiment(name, tmp_path, data_dir))
    null, pixels_and_said = task.conditions.null, task.source

    def y_of(key):
        row = jax.random.randint(key, (), 0, len(pixels_and_said[0]))
        return task.example(key, jax.tree.map(lambda leaf: leaf[row], pixels_and_said))[1]

    verify.dropping(lambda key, y: guidance.drop_condition(key, y, 0.1, null), null, 0.1, y_of).require()


def test_the_preset_s_spread_is_that_of_the_training_images(data_dir):
    train, _ = digits.read(data_dir)
    np.testing.assert_allclose(MEASURED.mean, train.properties.mean(axis=0), atol=5e-4)
    np.testing.assert_allclose(MEASURED.deviation, train.properties.std(axis=0), atol=5e-4)


def test_properties_are_asked_for_in_their_own_units():
    told, spread = conditions_of(MEASURED), spread_of(MEASURED)
    ys = told.parts["properties"]("properties", ("slant=0.2, weight=1.5", "width=5"))
    expected = np.zeros((2, 4))
    expected[0, [0, 3]] = (1.5 - spread.mean[0]) / spread.deviation[0], (0.2 - spread.mean[3]) / spread.deviation[3]
    expected[1, 1] = (5 - spread.mean[1]) / spread.deviation[1]
    np.testing.assert_allclose(ys.value, expected, rtol=1e-5)
    assert ys.is_known.all()
    stored = told.stored(ys)
    np.testing.assert_allclose(
        stored[:, [0, 1, 3]], [[1.5, spread.mean[1], 0.2], [spread.mean[0], 5, spread.mean[3]]], 1e-5
    )


def _held_out_by_hand(train):
    """Which images have all that a held-out prompt says, by NumPy's quantiles of their classes."""
    found = np.zeros(len(train.properties), bool)
    for prompt in sentences.HELD_OUT:
        label = next(y for y, name in enumerate(CLASSES) if name in prompt.split())
        own = train.images.label == label
        low, high = np.quantile(train.properties[own], [1 / 3, 2 / 3], axis=0).astype(np.float32)
        for index, (of_low, of_high) in enumerate(WORDS):
            own &= train.properties[:, index] < low[index] if of_low in prompt else True
            own &= train.properties[:, index] > high[index] if of_high in prompt else True
        found |= own
    return found


def test_no_sentence_is_learned_of_a_held_out_combination(data_dir, tmp_path):
    train, _ = digits.read(data_dir)
    is_held_out = _held_out_by_hand(train)
    assert 100 < is_held_out.sum() < 250
    pixels, _ = task_of(_experiment("described_digits", tmp_path, data_dir)).source
    np.testing.assert_array_equal(pixels, train.images.pixels[~is_held_out])


def test_a_sentence_of_training_says_a_part_of_what_can_be_said(data_dir, tmp_path):
    """No other word, and each eight times in ten; the class nine times."""
    task = task_of(_experiment("described_digits", tmp_path, data_dir))
    one = jax.tree.map(lambda leaf: leaf[0], task.source)
    ids, mask = jax.vmap(lambda key: task.example(key, one)[1].value)(jax.random.split(jax.random.key(0), 2000))
    can_be_said, _ = sentences.tokens(one[1], sentences.MOST_TOKENS)
    said = np.asarray(jnp.where(mask, ids, 0))
    noun = len(sentences.VOCABULARY) - 1
    assert set(np.unique(said)) == {0, noun, *np.unique(can_be_said).tolist()}
    words = [token for token in np.unique(can_be_said) if 0 < token <= 8]
    assert len(words) > 0
    for token in words:
        assert abs((said == token).any(axis=1).mean() - 0.8) < 4 * np.sqrt(0.16 / 2000)
    assert abs((said == noun).any(axis=1).mean() - 0.1) < 4 * np.sqrt(0.09 / 2000)


def test_real_digits_meet_their_own_words_and_no_others(data_dir):
    train, test = digits.read(data_dir)
    thresholds = thresholds_of(train.properties, train.images.label)
    own = descriptions_of(test, thresholds)
    asked = described.Prompts(*map(np.asarray, own))
    images = test.images.image[:, np.newaxis]
    assert set(described.met(asked, images, thresholds).values()) == {1.0}
    assert set(described.met(asked._replace(words=-asked.words), images, thresholds).values()) == {0.0}
    every_other = asked._replace(words=asked.words * np.where(np.arange(len(images)) % 2, 1, -1)[:, np.newaxis])
    is_said, is_odd = asked.words != 0, np.arange(len(images)) % 2 == 1
    found = described.met(every_other, images, thresholds)
    assert found["words"] == pytest.approx(is_said[is_odd].sum() / is_said.sum())
    assert found["width"] == pytest.approx(is_said[is_odd, 1].sum() / is_said[:, 1].sum())


def test_prompts_that_are_measured_are_those_of_one_and_two_words_but_for_the_held_out():
    kinds = described.prompts()
    counts = {kind: len(its.label) for kind, its in kinds.items()}
    assert counts == {"one_word": 10 * 8, "two_words": 10 * 24 - len(sentences.HELD_OUT), "held_out": 10}
    for its, num_words in zip(kinds.values(), (1, 2, 2), strict=True):
        texts = {tuple(row) for row in np.column_stack([its.label, its.words]).tolist()}
        assert len(texts) == len(its.label)
        np.testing.assert_array_equal(np.count_nonzero(its.words, axis=1), num_words)
    as_rows = lambda its: {tuple(row) for row in np.column_stack([its.label, its.words]).tolist()}  # noqa: E731
    assert not as_rows(kinds["two_words"]) & as_rows(kinds["held_out"])


def test_the_report_on_sentences_is_of_what_was_asked_and_drawn(data_dir, tmp_path, monkeypatch):
    """Of a field that leads to one training image of each class: all copies, and the words that these have."""
    experiment = _experiment("described_digits", tmp_path, data_dir)
    experiment = dataclasses.replace(experiment, sampling=Sampling((1.0,), num_steps=2, num_per_class=23))
    task, (train, _) = task_of(experiment), digits.read(data_dir)
    learned = np.flatnonzero(~_held_out_by_hand(train))
    rows = [learned[train.images.label[learned] == y][0] for y in range(10)]
    targets, first = jnp.asarray(train.images.image[rows]), sentences.VOCABULARY.index("zero")

    def field(x, t, y):
        label = jnp.max(jnp.where(y.value.mask, y.value.values - first, 0))
        return (targets[jnp.minimum(label, 9)] - x) / (1 - t)

    monkeypatch.setattr(described, "feature_classifier_of", lambda *of: None)
    rule = classifier_free(field, task.conditions.null)
    run = SimpleNamespace(experiment=experiment, task=task, path=paths.linear(), field=field, rule=rule, jumps=None)
    found = task.evaluate(run, EvaluationOptions(solvers=("euler",)), tmp_path, {})
    assert found["num_samples"] == {"one_word": 240, "two_words": 230, "held_out": 230}
    own = np.asarray(
        descriptions_of(train.take(np.array(rows)), thresholds_of(train.properties, train.images.label)).words
    )
    assert [row["prompts"] for row in found["words_met"]] == ["one_word", "two_words", "held_out"]
    one_word, _, held_out = found["words_met"]
    assert one_word["copies"] == held_out["copies"] == 1
    assert one_word["words"] == pytest.approx(np.mean(own != 0) / 2)
    assert one_word["slant"] == pytest.approx(np.mean(own[:, 3] != 0) / 2)
    said = np.stack([sentences.parse(prompt).words for prompt in sentences.HELD_OUT])
    assert held_out["words"] == pytest.approx(np.mean((own == said)[said != 0]))


def test_class_accuracy_is_the_share_of_samples_taken_for_what_was_asked():
    """Of 2 labels and 3 samples each, whose one pixel is the class: 2 and 1 are right."""
    classifier = FeatureClassifier(np.asarray, lambda images: np.eye(3)[images[:, 0, 0, 0].astype(int)], None)
    samples = np.array([[0, 0, 2], [0, 2, 1]], float).reshape(2, 3, 1, 1, 1)
    assert class_accuracy(classifier, np.array([0, 2]), samples) == 0.5
    assert class_accuracy(classifier, np.array([0, 1]), samples[:, :2]) == 0.5


def test_errors_are_root_mean_squares():
    asked = np.zeros((2, 4))
    found = np.array([[1.0, 0, 2, -3], [1.0, 0, 4, 3]])
    errors = measured.errors(asked, found)
    assert errors == pytest.approx({"all": np.sqrt(20 / 4), "weight": 1, "width": 0, "height": np.sqrt(10), "slant": 3})


def test_a_prompt_and_a_negative_one_are_drawn_as_the_library_guides(run_dirs, tmp_path):
    out = tmp_path / "samples.npz"
    done = command(
        "sample", run_dirs["described_digits"], "--prompt", "a seven", "A bold three, leaning right", "--negative",
        "thin", "--scale", 3, "--num-steps", 4, "--num-samples", 3, "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = restore_field(run_dirs["described_digits"])
    tokens = lambda prompt: conditions.known(conditions.Tokens(*sentences.encode(prompt, 5)))  # noqa: E731
    pair = guidance.pair(run.field, tokens("thin"))

    @jax.jit
    def drawn(index, y):
        noise_key, solver_key = jax.random.split(jax.random.fold_in(jax.random.key(0), index))
        guided = guidance.given(guidance.extrapolate(pair, 3.0), y)
        noise = jax.random.normal(noise_key, (8, 8, 1))
        return solvers.integrate(solvers.heun(guided), solver_key, noise, np.linspace(0, 1, 5))

    found = np.load(out)
    assert found["y"].tolist() == ["a seven", "a bold three leaning right", "a seven"]
    for index, prompt in enumerate(found["y"].tolist()):
        np.testing.assert_allclose(found["x"][index], drawn(index, tokens(prompt)), atol=1e-4)


def test_properties_are_stored_and_named(run_dirs, tmp_path):
    out = tmp_path / "samples.npz"
    asked = ["--properties", "weight=1.5,slant=0.1", "width=5", "--num-steps", 2]
    assert command("sample", run_dirs["measured_digits"], *asked, "--out", out).returncode == 0
    np.testing.assert_allclose(np.load(out)["y"], [[1.5, 4.198, 7.867, 0.1], [1.146, 5, 7.867, -0.042]], rtol=1e-5)
    folder = tmp_path / "each"
    prompt = ["--prompt", "seven, thin", "--num-steps", 2, "--out", f"{folder}/"]
    assert command("sample", run_dirs["described_digits"], *prompt).returncode == 0
    assert [file.name for file in folder.iterdir()] == ["000-a-thin-seven.png"]


BAD = {
    "an unknown word": ("described_digits", ["--prompt", "a bald three"], "prompt has the unknown word 'bald': the n"),
    "no words": ("described_digits", ["--prompt", ""], "prompt must say something"),
    "both words": ("described_digits", ["--prompt", "a thin bold one"], "prompt must say one of 'thin' and 'bold'"),
    "labels of sentences": (
        "described_digits",
        ["--labels", "3"],
        "labels is nothing that this run's field is told",
    ),
    "an unknown negative": ("described_digits", ["--negative", "thn"], "negative has the unknown word 'thn': the near"),
    "an unknown property": ("measured_digits", ["--properties", "size=3"], "properties must be NAME=VALUE,... of wei"),
    "no number": ("measured_digits", ["--properties", "width=big"], "properties must give a number for width, got 'b"),
    "no finite number": ("measured_digits", ["--properties", "width=nan"], "properties must give a number in -1000"),
    "a property twice": ("measured_digits", ["--properties", "width=3,width=4"], "properties gives width twice"),
    "a prompt of properties": ("measured_digits", ["--prompt", "a one"], "prompt is nothing that this run's field is"),
}


@pytest.mark.parametrize(("name", "arguments", "message"), BAD.values(), ids=BAD)
def test_conditions_that_cannot_be_are_refused_in_one_line(name, arguments, message, run_dirs, tmp_path):
    done = command("sample", run_dirs[name], *arguments, "--out", tmp_path / "samples.png")
    assert_one_line(done, message)


def test_a_prompt_is_refused_by_a_run_of_labels(trained_mixture, tmp_path):
    done = command("sample", trained_mixture, "--prompt", "a seven", "--out", tmp_path / "samples.png")
    assert_one_line(done, "prompt is nothing that this run's field is told; give --labels")


def test_another_kind_of_condition_is_not_led_away_from_and_its_embedding_not_taken(run_dirs, trained_digits, data_dir):
    out = ["--num-steps", 2, "--out", data_dir / "samples.npz"]
    measured, described = (run_dirs[name] for name in NAMES)
    for run, other in ((measured, described), (described, measured), (described, trained_digits)):
        done = command("sample", run, "--worse", other, *out)
        assert_one_line(
            done, "worse must be a run on the same kind of data and path, told by the same conditions, got "
        )
    experiment = _experiment("described_digits", data_dir / "tuned", data_dir)
    begun = prepare(with_source(experiment, measured, "ema")).experiment.started_from
    assert (begun.run_dir, begun.knows_null, begun.knows_labels) == (str(measured), False, False)


def test_sampling_reads_no_data(run_dirs, tmp_path):
    for name, folder in run_dirs.items():
        experiment = dataclasses.replace(run_folder.read_config(folder), data_dir=tmp_path / "nowhere")
        assert facts_of(experiment).conditions.texts == task_of(experiment, "shapes").conditions.texts, name


@pytest.mark.slow
def test_words_are_learned(data_dir, tmp_path):
    """In a tenth of the preset's steps: most classes right, words met more often than guessing's third, and by w."""
    done = command(
        "train", "described_digits", "--run-dir", tmp_path, "--data-dir", data_dir, "--num-steps", 400,
        "--save-every", 400, "--batch-size", 128, "--optimizer.warmup-steps", 40, "--sampling.num-per-class", 16,
        "--sampling.num-steps", 16, "--sampling.scales", 0, 1, 3,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = read_bounded(tmp_path / "metrics.json", 10**6)
    rows = parse_json(text)["words_met"]
    found = {(row["prompts"], row["scale"]): row for row in rows if row["solver"] == "heun"}
    assert found["one_word", 0.0]["recognised"] < 0.2 < 0.9 < found["one_word", 3.0]["recognised"]
    assert found["one_word", 0.0]["words"] < 0.45 < 0.7 < found["one_word", 3.0]["words"]
    assert found["two_words", 1.0]["words"] < found["two_words", 3.0]["words"]
