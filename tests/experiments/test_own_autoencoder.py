"""An autoencoder trained here: what its report says of it, and the commands that encode and decode with its run."""

import dataclasses
import json
import shutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import checkpoints, data
from experiments.cli.main import UserError
from experiments.config.networks import AutoencoderNetwork, DiTNetwork, MLPNetwork
from experiments.config.schema import ADAPTER
from experiments.evaluation import autoencoder as report
from experiments.figures import reconstructions
from experiments.presets.registry import PRESETS
from experiments.run import folder as run_folder
from experiments.run.autoencoder import decoder_of, digest_of, read_autoencoder
from experiments.run.model import model_of
from experiments.run.restore import classifier_for, field_of, restore_without_data
from experiments.run.train_setup import state_of, train_setup_of
from experiments.tasks.registry import task_of, with_facts
from experiments.tasks.task import Autoencoder
from tests.experiments.test_resume import final_state
from tests.support.commands import assert_one_line, command

OF_DIGITS = [
    "fashion_mnist_autoencoder", "--data.name", "digits", "--data.shape", "8", "8", "1", "--network.widths", "4", "8",
    "--network.latent-channels", "2", "--network.num-groups", "2", "--optimizer.learning-rate", "5e-3",
    "--batch-size", "64", "--num-microbatches", "1", "--num-steps", "300", "--save-every", "150", "--log-every", "50",
    "--samples-every", "150", "--optimizer.ema-decay", "0.95",
]  # fmt: skip
NETWORK = AutoencoderNetwork(widths=(4, 8), latent_channels=2, num_groups=2)


def _experiment(run_dir, data_dir, **changes):
    preset = PRESETS["fashion_mnist_autoencoder"][1]
    digits = dataclasses.replace(preset.data, name="digits", shape=(8, 8, 1))
    settings = {"run_dir": run_dir, "data_dir": data_dir, "data": digits, "network": NETWORK, "batch_size": 32}
    return dataclasses.replace(preset, **settings | changes)


@pytest.fixture(scope="module")
def begun(made_once, data_dir):
    """The folder of a run on the digits, latents 4 x 4 x 2, at its beginning (step 1) and with all doubled (step 2)."""

    def write(folder):
        experiment = _experiment(folder, data_dir)
        task = task_of(experiment)
        experiment = with_facts(experiment, task)
        state = state_of(experiment, model_of(experiment, task))
        run_folder.make_folder("run_dir", folder)
        run_folder.open_run(experiment)
        with checkpoints.Writer(run_folder.checkpoints_of(folder)) as writer:
            for step in (1, 2):
                writer.save(step, state, ADAPTER.dump_python(experiment, mode="json"))
                state = state._replace(ema=jax.tree.map(lambda leaf: 2 * leaf, state.ema))

    return made_once("begun_autoencoder", write)


@pytest.fixture(scope="module")
def trained(made_once, data_dir):
    """The folder of a finished run on the digits."""

    def train(folder):
        done = command("train", *OF_DIGITS, "--run-dir", folder, "--data-dir", data_dir)
        assert done.returncode == 0, done.stderr
        assert "360 held-out pictures: rms " in done.stdout

    return made_once("autoencoder", train)


@pytest.fixture(scope="module")
def images(data_dir):
    return data.load("digits", "test", data_dir).image


@pytest.fixture(scope="module")
def encoded(begun, images):
    """Mean and log-variance of the held-out pictures' latents, by the network itself."""
    network, params, _ = read_autoencoder(begun)
    return jax.jit(jax.vmap(lambda image: network.apply(params, image, method="encode")))(images)


@pytest.fixture
def own_data(tmp_path, data_dir):
    """A copy of the prepared digits, to write latents beside them."""
    shutil.copytree(data_dir / "digits", tmp_path / "data" / "digits")
    return tmp_path / "data"


def _encode(own_data, autoencoder, *arguments):
    told = ["--data-dir", own_data, "--split", "test", "--autoencoder", autoencoder, "--out", "latents"]
    return command("encode", "digits", *told, *arguments)


class _Halves(NamedTuple):
    """A run whose latents are known: the image's left half and the negative of it, halved; half of it is lost."""

    @property
    def autoencoder(self):
        def encode(image):
            left = image[:, : image.shape[1] // 2]
            return jnp.concatenate([left, -left / 2], -1), jnp.stack([jnp.zeros(left.shape[:2]), left[..., 0]], -1)

        return Autoencoder(encode, lambda z: 3 * jnp.concatenate([z[..., :1], 0 * z[..., :1]], 1))


def test_the_report_is_of_held_out_pictures_by_the_means_of_their_latents(images, tmp_path):
    test = data.Images(data.to_pixels(images), np.zeros(len(images), np.int32), 1)
    left, right = np.split(np.asarray(test.image, np.float64), 2, axis=2)
    found = report.evaluate(_Halves(), test, tmp_path, {})
    square = np.mean([(np.clip(3 * left, -1, 1) - left) ** 2, right**2])
    divergence = [left**2 / 2, (left**2 / 4 + np.exp(left) - 1 - left) / 2]
    kl = [each.sum((1, 2, 3)).mean() for each in divergence]
    numbers = {"rms": np.sqrt(square), "psnr": 10 * np.log10(4 / square), "kl": sum(kl)}
    assert (found["num_images"], found["latent_shape"]) == (360, [8, 4, 2])
    assert found["reconstruction"] == pytest.approx(numbers, rel=1e-4)
    rows = [
        {"channel": 0, "mean": left.mean(), "deviation": left.std(), "noise": 1.0, "kl": kl[0]},
        {"channel": 1, "mean": -left.mean() / 2, "deviation": left.std() / 2,
         "noise": np.sqrt(np.exp(left).mean()), "kl": kl[1]},
    ]  # fmt: skip
    assert found["latents"] == [pytest.approx(row, rel=1e-4) for row in rows]
    assert (tmp_path / "samples.png").stat().st_size > 0
    assert report.evaluate(_Halves(), test, tmp_path, {"reconstruction": "needs pictures"}) == {}


def test_a_sheet_has_each_picture_above_its_own():
    pictures = np.linspace(-1, 1, 12).reshape(12, 1, 1, 1) * np.ones((1, 2, 3, 1))
    found = reconstructions.sheet(pictures, -2 * pictures)[..., 0]
    assert found.shape == (2 * (2 * 3 + 2), 10 * 4)
    for index in range(12):
        row, column = divmod(index, 10)
        top, left = 8 * row + 1, 4 * column + 1
        assert np.all(found[top : top + 2, left : left + 3] == data.to_pixels(pictures[index])[..., 0])
        below = data.to_pixels(np.clip(-2 * pictures[index], -1, 1))[..., 0]
        assert np.all(found[top + 3 : top + 5, left : left + 3] == below)
    assert np.all(found[8:, 9:] == 255)


@pytest.mark.slow
def test_a_short_training_loses_less_than_the_mean_picture(trained, images):
    found = json.loads((trained / "metrics.json").read_text())["reconstruction"]
    assert found["rms"] < 0.8 * np.sqrt(np.mean((images - images.mean(0)) ** 2))
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    held_out = [row["held_out_loss"] for row in lines if "held_out_loss" in row]
    assert len(held_out) == 2
    assert held_out[1] < held_out[0]


@pytest.mark.slow
def test_a_sheet_is_drawn_while_it_trains(trained):
    assert sorted(file.name for file in (trained / "samples").iterdir()) == ["150.png", "300.png"]


@pytest.mark.slow
def test_a_run_resumed_ends_bit_equal(trained, data_dir, tmp_path):
    again = tmp_path / "again"
    shutil.copytree(trained, again)
    shutil.rmtree(again / "checkpoints" / "300")
    done = command("train", *OF_DIGITS, "--run-dir", again, "--data-dir", data_dir)
    assert "at step 150 of 300" in done.stdout
    jax.tree.map(np.testing.assert_array_equal, final_state(trained), final_state(again))


def test_the_loss_reaches_every_parameter_of_both_halves_and_falls(data_dir, tmp_path):
    """But attention's biases of the keys, to which softmax is blind."""
    experiment = _experiment(tmp_path, data_dir)
    task = task_of(experiment)
    model = model_of(experiment, task)
    loss = train_setup_of(experiment, task, model).loss
    keys, batch = jax.random.split(jax.random.key(0), 16), jax.tree.map(lambda leaf: leaf[:16], task.held_out)

    @jax.jit
    def step(params):
        mean = lambda params: jax.vmap(loss, (None, 0, 0))(params, keys, batch).mean()  # noqa: E731
        value, found = jax.value_and_grad(mean)(params)
        return value, found, jax.tree.map(lambda leaf, its: leaf - 0.3 * its, params, found)

    before, found, params = step(model.init(jax.random.key(1)))
    assert found["params"].keys() == {"encoder", "decoder"}
    leaves = jax.tree_util.tree_leaves_with_path(found)
    still = [jax.tree_util.keystr(at) for at, leaf in leaves if not jnp.any(jnp.abs(leaf) > 1e-8)]
    assert [name for name in still if "to_k" not in name] == []
    for _ in range(30):
        after, _, params = step(params)
    assert after < before / 2


def test_encode_and_decode_take_the_folder_of_a_run(begun, own_data, encoded):
    done = _encode(own_data, begun)
    assert done.returncode == 0, done.stderr
    latents = data.open_latents(own_data / "latents").latent
    np.testing.assert_allclose(latents, encoded[0], rtol=1e-4, atol=1e-4)
    network, params, _ = read_autoencoder(begun)
    decoder = decoder_of(begun, (4, 4, 2), (0.5, 0.25))
    expected = jax.vmap(lambda z: network.apply(params, z, method="decode"))(jnp.asarray(latents[:3]))
    assert decoder.shape == (8, 8, 1)
    np.testing.assert_allclose(decoder.decode_all((latents[:3] - 0.25) * 0.5), expected, rtol=1e-4, atol=1e-4)


def test_encode_does_not_go_on_with_another_autoencoder(begun, own_data, tmp_path, monkeypatch):
    earlier = tmp_path / "earlier"
    shutil.copytree(begun, earlier)
    shutil.rmtree(earlier / "checkpoints" / "2")
    assert digest_of(read_autoencoder(begun)) != digest_of(read_autoencoder(earlier))
    with monkeypatch.context() as patch:
        patch.setattr("experiments.encode._write_shards", lambda folder, work: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            _encode(own_data, earlier)
    assert_one_line(_encode(own_data, begun), "holds the beginning of other work")
    assert _encode(own_data, earlier).returncode == 0


def test_equal_parameters_of_two_folders_have_one_digest(begun, tmp_path):
    shutil.copytree(begun, tmp_path / "moved")
    found = read_autoencoder(begun)
    assert digest_of(read_autoencoder(tmp_path / "moved")) == digest_of(found)
    assert digest_of(found._replace(network=found.network.clone(num_groups=4))) != digest_of(found)


@pytest.mark.parametrize("asked", [("sample", "--out", "x.png"), ("diagnose",)], ids=lambda asked: asked[0])
def test_nothing_is_drawn_of_an_autoencoder(asked, begun):
    name, *arguments = asked
    done = command(name, begun, *arguments)
    assert_one_line(done, "holds an autoencoder, which draws no samples; encode with it: python -m experiments.encode")


def test_no_sampling_is_compiled_of_an_autoencoder():
    done = command("dryrun", "fashion_mnist_autoencoder", "--program", "sample", "--devices", 1)
    assert_one_line(done, "program must be train for an autoencoder")


def test_an_autoencoder_is_no_field_and_no_classifier(begun, trained_mixture, tmp_path):
    with pytest.raises(UserError, match=r"holds an autoencoder"):
        field_of(begun)
    run = restore_without_data(begun)
    with pytest.raises(UserError, match=r"objective 'autoencoder', not a classifier"):
        classifier_for(run, run)
    with pytest.raises(UserError, match=r"objective 'field', not an autoencoder"):
        read_autoencoder(trained_mixture)
    (tmp_path / "config.json").write_text((begun / "config.json").read_text())
    with pytest.raises(checkpoints.NoCheckpointError):
        read_autoencoder(tmp_path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"objective": "field"}, "objective must be 'autoencoder' for the network of one"),
        ({"objective": "classifier"}, "needs a U-Net or a transformer"),
        ({"network": DiTNetwork()}, "objective 'autoencoder' needs the network of one"),
        ({"network": MLPNetwork()}, "objective 'autoencoder' needs the network of one"),
        ({"network": AutoencoderNetwork(widths=(8, 12))}, "num_groups must divide all widths, got 8 and"),
        ({"network": AutoencoderNetwork(widths=(8,) * 4)}, "image must have sides that 8 divides, got shape"),
        ({"data": PRESETS["measured_digits"][1].data}, "objective 'autoencoder' needs pictures"),
        ({"data": PRESETS["mixture"][1].data}, "objective 'autoencoder' needs pictures"),
    ],
)
def test_what_does_not_fit_is_refused(changes, expected, data_dir):
    experiment = dataclasses.replace(PRESETS["fashion_mnist_autoencoder"][1], data_dir=data_dir, **changes)
    with pytest.raises(UserError, match=expected):
        model_of(experiment, task_of(experiment, "shapes")).init(jax.random.key(0))


@pytest.mark.parametrize("ending", [".bin", ".fp16.safetensors"])
def test_a_folder_of_diffusers_with_other_files_of_weights_is_not_taken_for_a_run(ending, tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    (tmp_path / f"diffusion_pytorch_model{ending}").touch()
    with pytest.raises(UserError, match=rf"holds diffusion_pytorch_model{ending}; name a safetensors file"):
        read_autoencoder(tmp_path)
