"""A run folder made of published weights: drawn from like any other, by what the library says the weights are."""

import dataclasses
import shutil
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image, ImageSequence

from cfgjax import checkpoints, guidance, losses, paths, solvers, training
from cfgjax.models import pretrained
from experiments.cli.main import UserError
from experiments.convert_weights import experiment_of
from experiments.presets.registry import PRESETS
from experiments.run import provenance
from experiments.run.folder import checkpoints_of, read_config
from experiments.run.model import model_of
from experiments.run.restore import restore_field
from experiments.run.train_setup import train_setup_of
from experiments.runtime import progress
from experiments.sample.options import OutputOptions
from experiments.sample.output import write
from experiments.tasks.registry import facts_of, task_of
from tests.models.test_pretrained_later import ARCHITECTURES as LATER
from tests.models.test_pretrained_later import _tensors as later_tensors
from tests.support.commands import assert_one_line, command

safetensors = pytest.importorskip("safetensors.numpy")

SMALL_ONE = pretrained.Architecture(16, 2, 2, patch=2, channels=4, side=4, num_classes=3, has_variance=True)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights, none of them zero."""
    rng = np.random.default_rng(0)
    shapes = pretrained.shapes_of(SMALL_ONE)
    tensors = {name: 0.3 * rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    file = tmp_path_factory.mktemp("weights") / "small.safetensors"
    safetensors.save_file(tensors, file)
    return file


def _bring(weights, run_dir, kind="sit"):
    return command("convert_weights", weights, "--kind", kind, "--num-heads", 2, "--out", run_dir)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dit", "sit"])
def test_published_weights_are_drawn_from_like_a_run(kind, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    run_dir = tmp_path / "run"
    done = _bring(weights, run_dir, kind)
    assert done.returncode == 0, done.stderr
    assert "reading, then writing: 2 of 2 parts" in done.stderr
    assert f"wrote {kind} (2 blocks of width 16, patches of 2, 0 million parameters)" in done.stdout
    architecture, params = pretrained.read(weights, num_heads=2)
    field = pretrained.field(kind, partial(pretrained.network(kind, architecture).apply, params))
    options = ["--labels", 2, "--scale", 3, "--solver", "euler", "--num-steps", 2, "--out", tmp_path / "drawn.npz"]
    done = command("sample", run_dir, *options)
    assert done.returncode == 0, done.stderr
    run = restore_field(run_dir)
    noise_key, solver_key = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))
    noise = jax.random.normal(noise_key, (4, 4, 4))
    guided = guidance.given(guidance.classifier_free(field, 3.0, 3), 2)
    expected = solvers.integrate(solvers.euler(guided), solver_key, noise, jnp.linspace(0, 1, 3))
    found = np.load(tmp_path / "drawn.npz")
    np.testing.assert_allclose(found["x"][0], expected, rtol=1e-3, atol=1e-3 * float(jnp.max(jnp.abs(expected))))
    assert float(run.model.path.alpha(0.25)) == 0.25
    assert_one_line(_bring(weights, run_dir, kind), f"out {run_dir} holds a run already; name another folder")


def test_a_mistake_ends_in_one_line_and_writes_nothing(weights, tmp_path):
    run_dir = tmp_path / "run"
    done = command("convert_weights", weights, "--kind", "sit", "--out", run_dir)
    assert_one_line(done, f"{weights}: num_heads must be given for 2 blocks of width 16")
    done = command("convert_weights", weights, "--kind", "sit", "--num-heads", 5, "--out", run_dir)
    assert_one_line(done, "num_heads must divide the width 16, got 5")
    assert_one_line(_bring(tmp_path / "none", run_dir), "none cannot be read: No such file")
    pickled = tmp_path / "weights.pt"
    pickled.write_bytes(b"PK\x03\x04" + bytes(100))
    assert_one_line(_bring(pickled, run_dir), f"{pickled}: it is a zip, as PyTorch's .pt files are")
    assert_one_line(_bring(tmp_path, run_dir), f"{tmp_path}: it is a folder, not a file")
    tensors = safetensors.load_file(weights)
    del tensors["blocks.1.mlp.fc1.bias"]
    safetensors.save_file(tensors, tmp_path / "less.safetensors")
    assert_one_line(_bring(tmp_path / "less.safetensors", run_dir), "tensor blocks.1.mlp.fc1.bias is missing")
    assert_one_line(_bring(weights, run_dir, "flux"), "flux")
    assert not run_dir.exists()


def test_what_no_file_of_sit_tells_is_said(tmp_path):
    """REPA's SiT (sihyun-yu/REPA, models/sit.py and loss.py): the same names, t = 1 is noise, 4 outputs for 8."""
    shapes = pretrained.shapes_of(SMALL_ONE._replace(has_variance=False))
    safetensors.save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "s")
    done = _bring(tmp_path / "s", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "trained with REPA, as the missing channels of variance suggest, the field is minus the right" in done.stderr


def test_a_run_of_repa_is_its_field(weights, tmp_path):
    """Minus what the network gives where its time is turned round, on the linear path."""
    done = _bring(weights, tmp_path / "run", "repa")
    assert done.returncode == 0, done.stderr
    run = restore_field(tmp_path / "run")
    predict = partial(pretrained.network("sit", SMALL_ONE).apply, pretrained.read(weights, num_heads=2)[1])
    x, y = jax.random.normal(jax.random.key(0), (4, 4, 4)), jnp.int32(1)
    expected = -predict(x, 0.75, y)
    np.testing.assert_allclose(run.field(x, 0.25, y), expected, rtol=1e-3, atol=1e-3 * float(jnp.abs(expected).max()))
    assert float(run.model.path.alpha(0.25)) == 0.25


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lightningdit", "jit"])
def test_a_run_of_a_later_network_is_its_field(kind, tmp_path):
    """Heads come from the file; JiT's pixels are divided by the scale of its noise, LightningDiT's latents by 1."""
    tensors, architecture = later_tensors(kind), LATER[kind]
    safetensors.save_file(tensors, tmp_path / "weights.safetensors")
    options = ["--noise-scale", 2] if kind == "jit" else []
    file, run_dir = tmp_path / "weights.safetensors", tmp_path / "run"
    done = command("convert_weights", file, "--kind", kind, *options, "--out", run_dir)
    assert done.returncode == 0, done.stderr
    run, params = restore_field(run_dir), pretrained.parameters(tensors.__getitem__, architecture, kind)
    field = pretrained.field(kind, partial(pretrained.network(kind, architecture).apply, params))
    x, y = jax.random.normal(jax.random.key(0), run.task.shape), jnp.int32(1)
    expected = jax.jit(field)(x, jnp.float32(0.97), y)
    np.testing.assert_allclose(run.field(x, 0.97, y), expected, rtol=1e-3, atol=1e-3 * float(jnp.abs(expected).max()))
    assert run.task.scaling == ((0.5, 0.0) if kind == "jit" else (1.0, 0.0))
    trained = run.experiment.objective, run.experiment.time_density, run.experiment.time_logit
    assert trained == (
        ("data", "logit_normal", (-0.8, 0.8)) if kind == "jit" else ("field", "logit_normal", (0.0, 1.0))
    )


def _frames(file):
    with Image.open(file) as image:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]


@pytest.mark.parametrize(("out", "is_film"), [("all.png", False), ("each/", False), ("film.apng", True)])
def test_pictures_of_jit_are_its_pixels_whatever_its_noise(out, is_film, tmp_path, monkeypatch):
    """Samples are pixels over the deviation of the noise; what is drawn is not."""
    monkeypatch.setattr(provenance, "of_run", lambda run: dict.fromkeys(provenance.NAMES, ""))
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, *([3] if is_film else []), 6, 6, 3))

    def drawn(noise_scale):
        architecture = LATER["jit"]._replace(noise_scale=noise_scale)
        facts = facts_of(experiment_of("jit", architecture, tmp_path))
        options = OutputOptions(f"{noise_scale:g}-{out}", is_film)
        write(options, SimpleNamespace(task=facts), pixels / noise_scale, np.arange(2), 3 if is_film else 1)
        place = tmp_path / options.out
        files = sorted(place.iterdir()) if place.is_dir() else [place]
        return [frame for file in files for frame in _frames(file)]

    found, expected = drawn(2.0), drawn(1.0)
    assert np.ptp(expected[0]) > 200
    assert len(found) == len(expected)
    assert all(map(np.array_equal, found, expected))


def test_the_scale_of_noise_is_asked_for_where_no_paper_tells_it(weights, tmp_path):
    safetensors.save_file(later_tensors("jit"), tmp_path / "jit.safetensors")
    out = ["--out", tmp_path / "run"]
    done = command("convert_weights", tmp_path / "jit.safetensors", "--kind", "jit", *out)
    assert_one_line(done, "noise_scale must be given for images of side 6, which no paper has")
    done = command("convert_weights", weights, "--kind", "sit", "--noise-scale", 2, *out)
    assert_one_line(done, "noise_scale must be left out but for the kind jit, got 2.0 for sit")
    done = command("convert_weights", weights, "--kind", "jit", "--num-heads", 2, *out)
    assert_one_line(done, "tensor x_embedder.proj1.weight is missing")


@pytest.mark.slow
def test_the_checkpoint_is_of_parameters_alone_and_one_of_a_whole_state_is_read_too(weights, tmp_path):
    """Commands of before wrote a whole state."""
    run_dir = tmp_path / "run"
    assert _bring(weights, run_dir, "dit").returncode == 0
    folder = checkpoints_of(run_dir)
    expected = pretrained.read(weights, num_heads=2, kind="dit")[1]
    assert checkpoints.holds_params_alone(folder)
    done = command("train", "mixture", "--run-dir", run_dir)
    assert_one_line(done, "holds parameters alone (published_dit), and no training to go on with: begin a new run with")
    state = training.init_state(expected, optax.adamw(1e-3), jax.random.key(0))
    with checkpoints.Writer(folder) as writer:
        writer.save(1, state, checkpoints.restore_params(folder).metadata)
    assert not checkpoints.holds_params_alone(folder)
    for step in (0, 1):
        found = restore_field(run_dir)
        assert found.step == 1 - step
        jax.tree.map(np.testing.assert_array_equal, found.ema, expected)
        shutil.rmtree(folder / str(found.step))
    assert not checkpoints.holds_params_alone(folder)


def test_a_run_of_steps_cannot_be_a_classifier(weights, tmp_path):
    assert "REPA" not in _bring(weights, tmp_path / "run", "dit").stderr
    experiment = read_config(tmp_path / "run")
    model = model_of(experiment, facts_of(experiment))
    assert float(model.path.beta(1.0)) == float(paths.linear().beta(1.0))
    clothes = PRESETS["fashion_mnist_classifier"][1]
    steps = dataclasses.replace(clothes, path="ddpm")
    with pytest.raises(UserError, match="objective 'classifier' needs the path of a field, not 'ddpm'"):
        model_of(steps, facts_of(steps))


@pytest.mark.slow
def test_any_run_on_the_steps_is_drawn_on_the_linear_path():
    """Trained at the steps of DDPM, its loss and its field are those of the noise there."""
    experiment = dataclasses.replace(PRESETS["mixture"][1], path="ddpm", objective="noise")
    task = task_of(experiment)
    model = model_of(experiment, task)
    params = jax.tree.map(lambda leaf: leaf + 0.1, model.init(jax.random.key(0)))
    predict = partial(model.network.apply, params)
    x, t, y, key = jnp.array([0.5, -1.0]), jnp.float32(0.4), jnp.int32(3), jax.random.key(1)
    expected = pretrained.field("dit", predict)(x, t, y)
    np.testing.assert_allclose(model.field(params)(x, t, y), expected, rtol=1e-5)
    assert not np.allclose(expected, predict(x, t, y), rtol=0.1)
    data_key, label_key, _, noise_key = jax.random.split(key, 4)
    z, label = task.example(data_key, 0)
    dropped = guidance.drop_condition(label_key, label, experiment.label_drop_rate, 8)
    loss = losses.noise_matching(paths.ddpm(), predict, noise_key, z, dropped, time_density=losses.uniform())
    setup = train_setup_of(experiment, task, model)
    np.testing.assert_allclose(setup.evaluation_loss(params, key, jnp.int32(0)), loss, rtol=1e-4)
