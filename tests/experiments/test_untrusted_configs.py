"""Untrusted run folders: config.json is read back as it stands, or refused with one line that names the field."""

import copy
import dataclasses
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from hypothesis import given, strategies

from cfgjax import checkpoints, data, training
from experiments.cli.main import UserError
from experiments.config.kinds import LatentData
from experiments.config.networks import DiTNetwork, MLPNetwork, UNetNetwork
from experiments.config.schema import ADAPTER, Sampling
from experiments.evaluate import Options, _evaluation_options
from experiments.evaluation import feature_classifier
from experiments.evaluation.feature_classifier import feature_classifier_of, folder_of
from experiments.presets.registry import PRESETS
from experiments.run import folder as run_folder
from experiments.run.fit import prepare
from experiments.run.model import model_of
from experiments.run.restore import Run
from experiments.runtime import distributed
from experiments.tasks.memory_limit import num_inner, num_parameters
from experiments.tasks.registry import facts_of, task_of
from tests.support.commands import assert_one_line, command
from tests.support.fuzzing import mutations, tries

CONFIGS = {name: ADAPTER.dump_python(preset, mode="json") for name, (_, preset) in PRESETS.items()}
VALUES = [
    None, True, False, 0, 1, -1, 2, 7, 10**6, 2**31, 2**63, 10**400, -(10**400), 0.0, 0.5, -0.5, 1.5, 1e-300, 1e300,
    float("nan"), float("inf"), float("-inf"), "", "1", "0.5", "true", "x", "digits", "linear", "../x", "/etc/passwd",
    "a\0b", "\x1b[31m", "\ud800", "x" * 5000, [], [1], [0.5, 1.5], [1, 2, 3], [10**9] * 3, [1] * 5000, [[]], {},
    {"x": 1}, {"name": "digits"},
]  # fmt: skip


def _places(tree, prefix=()):
    """The path of every field and of every element, at every depth."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for name, value in items:
        yield (*prefix, name)
        yield from _places(value, (*prefix, name))


def _inside(tree, path):
    for name in path:
        tree = tree[name]
    return tree


@strategies.composite
def changes(draw, config):
    """The config with one field left out, put in, or of another value, and the path of it."""
    changed = copy.deepcopy(config)
    *above, name = draw(strategies.sampled_from(list(_places(config))))
    owner = _inside(changed, above)
    kind = draw(strategies.sampled_from(["replace", "replace", "leave out", "put in"]))
    if kind == "leave out":
        del owner[name]
    elif kind == "put in" and isinstance(owner, dict):
        name = "surplus"
        owner[name] = draw(strategies.sampled_from(VALUES))
    else:
        owner[name] = draw(strategies.sampled_from(VALUES))
    return changed, (*above, name)


def _write(folder, content):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


def _is_as_said(found, said):
    """Whether everything that a config says stands in what was read."""
    if isinstance(said, dict):
        return isinstance(found, dict) and all(name in found and _is_as_said(found[name], said[name]) for name in said)
    if isinstance(said, list):
        return len(found) == len(said) and all(map(_is_as_said, found, said))
    if isinstance(said, str):
        return found == said or Path(found) == Path(said)
    return found == said and isinstance(found, bool) == isinstance(said, bool)


def _read_or_complaint(folder):
    """What was read, as JSON again, or the message of its refusal."""
    try:
        found = run_folder.read_config(folder)
    except UserError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 3000
        return None, str(error)
    assert found.run_dir == folder
    return ADAPTER.dump_python(found, mode="json"), ""


@pytest.mark.parametrize("preset", PRESETS)
@tries(150)
@given(source=strategies.data())
def test_a_changed_config_is_read_as_it_stands_or_refused_by_the_fields_name(preset, source, tmp_path):
    config, path = source.draw(changes(CONFIGS[preset]))
    found, complaint = _read_or_complaint(_write(tmp_path / "run", config))
    if found is None:
        named = next(name for name in reversed(path) if isinstance(name, str))
        assert named in complaint or "is no finite number" in complaint or "integer string conversion" in complaint
    else:
        assert _is_as_said(found, {name: value for name, value in config.items() if name != "run_dir"})


@pytest.mark.parametrize("preset", ["digits", "cifar10", "imagenet256_latent"])
@tries(150)
@given(source=strategies.data())
def test_a_damaged_config_is_read_as_it_stands_or_refused(preset, source, tmp_path):
    content = source.draw(mutations(json.dumps(CONFIGS[preset]).encode()))
    found, _ = _read_or_complaint(_write(tmp_path / "run", content))
    if found is not None:
        said = json.loads(content)
        assert _is_as_said(found, {name: value for name, value in said.items() if name != "run_dir"})


@tries(150)
@given(content=strategies.one_of(strategies.binary(max_size=100), strategies.text(max_size=100).map(str.encode)))
def test_random_bytes_are_no_config(content, tmp_path):
    found, complaint = _read_or_complaint(_write(tmp_path / "run", content))
    assert found is None
    assert "config.json does not read" in complaint


def _text(**changed):
    return json.dumps(CONFIGS["mixture"] | changed)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "does not read"),
        (_text(path="\ud800"), "'path' is no text"),
        ("[" * 100_000, "nested too deeply"),
        ('{"data":' * 15_000, "nested too deeply"),
        ("\ufeff" + _text(), "does not read"),
        (_text()[:-1] + ', "seed": 1}', "'seed' stands there twice"),
        (_text().replace('"radius": 2.0', '"radius": NaN'), "NaN is no finite number"),
        (_text().replace('"radius": 2.0', '"radius": -Infinity'), "-Infinity is no finite number"),
        (_text().replace('"radius": 2.0', '"radius": 1e999'), "1e999 is no finite number"),
        (_text() + " " * 2**22, "holds more than 4194304 bytes"),
        (_text(num_steps="7000"), "num_steps: Input should be a valid integer"),
        (_text(num_steps=7000.0), "num_steps: Input should be a valid integer"),
        (_text(num_steps=True), "num_steps: Input should be a valid integer"),
        (_text(num_steps=10**10), "num_steps: Input should be less than"),
        (_text(run_dir="a\0b"), "run_dir: Value error, a path must have at most 1024 letters"),
        (_text(data_dir="a" * 2000), "data_dir: Value error"),
        (_text(preset="\x1b[31m"), "preset: String should match"),
        (_text(data={"name": "../../etc"}), "data.ImageData.name: String should match"),
        (_text(data={"name": "digits", "train_split": "../x"}), "data.ImageData.train_split: String should match"),
        (_text(data={"folder": "../x", "factor": 1.0}), "data.LatentData.folder: Value error, the folder must lie"),
        (_text(data={"folder": "/etc", "factor": 1.0}), "data.LatentData.folder: Value error, the folder must lie"),
        (_text(data={"num_classes": 10**9}), "data.MixtureData.num_classes: Input should be less than"),
        (_text(sampling={"scales": [1.0] * 2000}), "sampling.scales: "),
        (_text(network={"width": 10**6, "embedding_width": 4}), "network.MLPNetwork.width: Input should be less than"),
        (_text(network={"multipliers": [1] * 100}), "network.UNetNetwork.multipliers: "),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(content, complaint, tmp_path):
    assert complaint in _read_or_complaint(_write(tmp_path / "run", content.encode()))[1]


def test_other_bytes_than_utf_8_are_refused(tmp_path):
    for content in (_text().encode("utf-16"), b"\xff", _text().encode().replace(b"linear", b"l\xe9near")):
        assert "UTF-8" in _read_or_complaint(_write(tmp_path / "run", content))[1]


def _is_pipe(file):
    os.mkfifo(file)


def _is_folder(file):
    file.mkdir()


def _leads_out(file):
    outside = file.parent.parent / "config.json"
    outside.write_text(_text())
    file.symlink_to(outside)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [(_is_pipe, "not a regular file"), (_is_folder, "not a regular file"), (_leads_out, "link that leads out")],
)
def test_what_is_no_file_of_the_folder_is_refused_at_once(make, complaint, tmp_path):
    (tmp_path / "run").mkdir()
    make(tmp_path / "run" / "config.json")
    assert_one_line(command("sample", tmp_path / "run"), complaint)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_config_is_read_back_equal_but_for_the_place_where_it_lies(preset, tmp_path):
    experiment = dataclasses.replace(PRESETS[preset][1], run_dir=Path("/somewhere/else"))
    folder = _write(tmp_path / "run", ADAPTER.dump_json(experiment, indent=2))
    assert run_folder.read_config(folder) == dataclasses.replace(experiment, run_dir=folder)


def test_nothing_in_an_error_can_speak_to_the_terminal(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "source" / name).mkdir(parents=True)
        (tmp_path / "source" / name / "\x1b[31m\nred.png").write_bytes(b"")
    done = command("prepare", "mine", "--source", tmp_path / "source", "--data-dir", tmp_path / "data")
    assert_one_line(done, r"\x1b[31m red.png does not read")
    assert "\x1b" not in done.stderr


def _mixture(**changes):
    return dataclasses.replace(PRESETS["mixture"][1], **changes)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"network": MLPNetwork(width=2**16, depth=2**10)}, "network would take"),
        ({"network": DiTNetwork(width=2**16, depth=2**10)}, "network would take"),
        ({"network": UNetNetwork(2**16, (2**10,) * 16, 2**10)}, "network would take"),
        ({"sampling": Sampling((1.0,) * 1000, num_per_class=2**20)}, "sampling .* would take"),
        ({"sampling": Sampling(chunk=2**20), "network": MLPNetwork(width=2**14, depth=1)}, "sampling.chunk would take"),
    ],
)
def test_what_can_never_fit_is_refused_before_it_is_tried(changes, complaint, monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: 2**12 if name == "SC_PAGE_SIZE" else 2**23)
    run_folder.validate(_mixture(**changes))
    with pytest.raises(UserError, match=complaint):
        prepare(_mixture(**changes))


def test_what_is_refused_is_less_than_what_a_network_has():
    """The estimates are lower bounds: every preset's own, against its true number of parameters."""
    names = "fashion_mnist", "fashion_mnist_classifier", "fashion_mnist_autoencoder", "imagenet64", "imagenet256_latent"
    for name in ("mixture", "digits", *names):
        experiment = PRESETS[name][1]
        task = facts_of(experiment)
        params = jax.eval_shape(model_of(experiment, task).init, jax.random.key(0))
        true = sum(leaf.size for leaf in jax.tree.leaves(params))
        assert true / 8 < num_parameters(experiment.network, task.shape, task.num_classes) <= true, name
        assert num_inner(experiment.network, task.shape) > 0


@pytest.fixture
def latents(tmp_path):
    """A data folder with latents."""
    (tmp_path / "data" / "mine").mkdir(parents=True)
    np.save(tmp_path / "data" / "mine" / "latents.npy", np.zeros((40, 4, 4, 2), np.float32))
    np.save(tmp_path / "data" / "mine" / "labels.npy", np.zeros(40, np.int64))
    return tmp_path / "data"


def _of_latents(data_dir, folder="mine"):
    settings = LatentData(folder, shape=(4, 4, 2), num_classes=2, num_held_out=8)
    return dataclasses.replace(PRESETS["imagenet256_latent"][1], data=settings, data_dir=data_dir, batch_size=32)


@pytest.mark.parametrize("place", [0, 39])
def test_a_latent_that_is_not_finite_is_named_whether_held_out_or_trained_on(place, latents):
    """The first of the rows in random order is held out, the last is trained on."""
    row = int(np.random.default_rng(0).permutation(40)[place])
    np.load(latents / "mine" / "latents.npy", mmap_mode="r+")[row, 1, 1, 1] = np.inf
    with pytest.raises(data.DataError, match=rf"row {row} of latents\.npy is not finite"):
        list(task_of(_of_latents(latents)).batches(range(1)))


def _streamed(data_dir):
    settings = dataclasses.replace(PRESETS["digits"][1].data, in_memory=False)
    return dataclasses.replace(PRESETS["digits"][1], data=settings, data_dir=data_dir, batch_size=32)


def test_pictures_read_from_disk_are_those_held_in_memory(data_dir):
    images = data.load("digits", "train", data_dir)
    for step, (pixels, labels) in enumerate(task_of(_streamed(data_dir)).batches(range(3))):
        rows = data.batch_indices(0, step, 32, len(images.label))
        np.testing.assert_array_equal(pixels, images.pixels[rows])
        np.testing.assert_array_equal(labels, images.label[rows])


def test_a_broken_file_is_named_while_it_is_read_ahead(data_dir, tmp_path):
    shutil.copytree(data_dir / "digits", tmp_path / "digits")
    (file,) = tmp_path.rglob("digits-train*")
    content = bytearray(file.read_bytes())
    content[150] ^= 1
    file.write_bytes(content)
    with pytest.raises(data.DataError, match=r"split 'train' of .* does not read: Corrupted"):
        list(task_of(_streamed(tmp_path)).batches(range(44)))


def test_a_folder_of_latents_that_leads_out_is_refused(latents, tmp_path):
    (latents / "mine").rename(tmp_path / "mine")
    (latents / "mine").symlink_to(tmp_path / "mine")
    with pytest.raises(data.DataError, match="is a link that leads out"):
        task_of(_of_latents(latents))
    with pytest.raises(UserError, match=r"data\.LatentData\.folder: Value error, the folder must lie inside data_dir"):
        run_folder.validate(_of_latents(latents, Path("../mine")))


@pytest.fixture
def images():
    """Images for which no feature classifier was trained."""
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), np.uint8)
    return data.Images(pixels, np.arange(20, dtype=np.int32) % 2, 2)


def _save_classifier(folder, params):
    state = training.init_state(params, optax.adam(1e-3), jax.random.key(0))
    with checkpoints.Writer(folder) as writer:
        writer.save(int(state.step), state, {})


def test_a_feature_classifier_that_is_none_is_refused_with_what_to_do(images, tmp_path):
    settings = PRESETS["digits"][1].data
    folder = folder_of(settings, tmp_path, images)
    _save_classifier(folder, {"other": np.ones(2, np.float32)})
    with pytest.raises(checkpoints.CheckpointError, match=f"remove {folder} to train the feature classifier again"):
        feature_classifier_of(settings, tmp_path, images, images)


def test_a_feature_classifier_is_written_only_where_that_is_asked_for(images, tmp_path, capsys):
    settings = PRESETS["digits"][1].data
    found = feature_classifier_of(settings, tmp_path, images, images, is_kept=False)
    assert found.log_probs(images.image).shape == (20, 2)
    assert not list(tmp_path.iterdir())
    assert "by --data-dir to keep it" in capsys.readouterr().out


def test_a_feature_classifier_that_another_process_lacks_is_trained_by_all_and_not_written_twice(
    images, tmp_path, monkeypatch
):
    """Where one of them read it back while the others train, they would wait for each other."""
    settings = PRESETS["digits"][1].data
    first = feature_classifier_of(settings, tmp_path, images, images)
    files = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")}
    monkeypatch.setattr(distributed, "all_texts", lambda own: [own, "no"])
    monkeypatch.setattr(feature_classifier, "_restored", None)
    again = feature_classifier_of(settings, tmp_path, images, images)
    np.testing.assert_array_equal(again.log_probs(images.image), first.log_probs(images.image))
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*")} == files


def test_evaluate_keeps_a_feature_classifier_only_in_a_folder_that_the_user_names(tmp_path):
    experiment = PRESETS["digits"][1]
    run = Run(experiment, task_of(experiment, "shapes"), None, None)
    assert not _evaluation_options(Options(tmp_path), run).is_kept
    assert _evaluation_options(Options(tmp_path, data_dir=tmp_path), run).is_kept


def test_a_folder_of_feature_classifiers_that_leads_out_is_refused(images, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "recognisers").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(data.DataError, match="is a link that leads out"):
        feature_classifier_of(PRESETS["digits"][1].data, tmp_path / "data", images, images)
    assert not list((tmp_path / "elsewhere").iterdir())
