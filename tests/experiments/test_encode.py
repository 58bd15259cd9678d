"""Pictures to latents and back by the commands: what is written is what the autoencoder gives, killed or not."""

import dataclasses
import shutil
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import checkpoints, data
from cfgjax.models import pretrained_autoencoder
from experiments import encode as command_of_encode
from experiments.cli.main import UserError
from experiments.config.kinds import LatentData
from experiments.config.networks import MLPNetwork
from experiments.config.schema import ADAPTER, Sampling
from experiments.presets.registry import PRESETS
from experiments.run import folder as run_folder
from experiments.run.batch_sampling import keys_at
from experiments.run.model import model_of
from experiments.run.train_setup import state_of
from experiments.tasks.registry import task_of
from tests.support.autoencoders import COLOUR, GRAY, write_autoencoder
from tests.support.commands import assert_one_line, command, finish, start

pytest.importorskip("safetensors")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    return {"gray": write_autoencoder(folder / "gray", GRAY), "colour": write_autoencoder(folder / "colour", COLOUR, 1)}


@pytest.fixture
def own_data(tmp_path, data_dir):
    """A copy of the prepared digits, to write latents beside them."""
    shutil.copytree(data_dir / "digits", tmp_path / "data" / "digits")
    return tmp_path / "data"


def _encode(own_data, weights, *arguments, out="latents"):
    of_digits = ["digits", "--data-dir", own_data, "--split", "test"]
    return command("encode", *of_digits, "--autoencoder", weights, "--out", out, *arguments)


def _moments(weights, images):
    network, params, _ = pretrained_autoencoder.read(weights / "diffusion_pytorch_model.safetensors")
    return jax.jit(jax.vmap(lambda image: network.apply(params, image, method="encode")))(images)


def test_latents_are_the_encoder_s_means_in_the_split_s_order(own_data, weights):
    done = _encode(own_data, weights["gray"])
    assert done.returncode == 0, done.stderr
    assert "360 latents of 4 x 4 x 2, float32" in done.stdout
    test, latents = data.load("digits", "test", own_data), data.open_latents(own_data / "latents")
    mean, _ = _moments(weights["gray"], test.image)
    np.testing.assert_allclose(latents.latent, mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(latents.label, test.label)
    assert [file.name for file in own_data.iterdir() if "encoding" in file.name] == []


def test_draws_have_the_noise_of_their_pictures(own_data, weights):
    """Mirrored pictures another one."""
    assert _encode(own_data, weights["gray"], "--keep", "draw", "--flips", "--seed", 3).returncode == 0
    test, latents = data.load("digits", "test", own_data), data.open_latents(own_data / "latents")
    keys = keys_at(3, jnp.arange(360))
    others = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    for found, images, its in ((latents.latent, test.image, keys), (latents.flipped, test.image[:, :, ::-1], others)):
        mean, log_variance = _moments(weights["gray"], images)
        noise = jax.vmap(lambda key: jax.random.normal(key, (4, 4, 2)))(its)
        np.testing.assert_allclose(found, mean + np.exp(log_variance / 2) * noise, rtol=1e-3, atol=1e-3)
    assert latents.deviation is None


def test_moments_and_mirrored_pictures_are_kept(own_data, weights):
    """The deviation is that of the encoder; what is mirrored is the picture, not its latent."""
    assert _encode(own_data, weights["gray"], "--keep", "moments", "--flips").returncode == 0
    test, latents = data.load("digits", "test", own_data), data.open_latents(own_data / "latents")
    for images, mean, deviation in (
        (test.image, latents.latent, latents.deviation),
        (test.image[:, :, ::-1], latents.flipped, latents.flipped_deviation),
    ):
        expected, log_variance = _moments(weights["gray"], images)
        np.testing.assert_allclose(mean, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(deviation, np.exp(log_variance / 2), rtol=1e-4, atol=1e-4)
    assert np.abs(latents.flipped - latents.latent[:, :, ::-1]).max() > 0.1
    told = data.read_statistics(own_data / "latents")
    assert told is not None
    assert told.count == 360
    both = np.concatenate([latents.latent, latents.flipped]).astype(np.float64)
    square = np.square(np.concatenate([latents.deviation, latents.flipped_deviation]), dtype=np.float64)
    np.testing.assert_allclose(told.mean, both.mean(axis=(0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(told.std**2, both.var(axis=(0, 1, 2)) + square.mean(axis=(0, 1, 2)), rtol=1e-9)


@pytest.mark.slow
def test_what_is_killed_goes_on_to_the_same_bytes(own_data, weights):
    """SIGKILL once some parts are there: moments and mirrored pictures come out as undisturbed."""
    asked = [
        "digits", "--data-dir", own_data, "--autoencoder", weights["gray"], "--keep", "moments", "--flips", "--out",
    ]  # fmt: skip
    assert finish(start("encode", *asked, "whole")).returncode == 0
    process = start("encode", *asked, "parts")
    for _ in range(2400):
        if len(list((own_data / ".parts.encoding").glob("0*.npy"))) >= 2 or process.poll() is not None:
            break
        time.sleep(0.01)
    process.kill()
    assert finish(process).returncode == -signal.SIGKILL
    assert not (own_data / "parts").exists()
    done = finish(start("encode", *asked, "parts"))
    assert done.returncode == 0, done.stderr
    names = sorted(file.name for file in (own_data / "whole").iterdir())
    assert names == [
        "deviations.npy", "flipped.npy", "flipped_deviations.npy", "labels.npy", "latents.npy", "source.json",
        "statistics.json",
    ]  # fmt: skip
    for name in names:
        assert (own_data / "parts" / name).read_bytes() == (own_data / "whole" / name).read_bytes()
    assert not list(own_data.glob(".parts*"))


def test_gray_pictures_have_three_equal_channels_for_an_encoder_of_colours(own_data, weights):
    assert _encode(own_data, weights["colour"]).returncode == 0
    test = data.load("digits", "test", own_data)
    mean, _ = _moments(weights["colour"], np.repeat(test.image, 3, axis=-1))
    np.testing.assert_allclose(data.open_latents(own_data / "latents").latent, mean, rtol=1e-4, atol=1e-4)


def test_what_is_stopped_goes_on_to_the_same_bytes(own_data, weights, monkeypatch):
    """The parts that were written are kept, and what was under way is made anew."""
    assert _encode(own_data, weights["gray"], out="whole").returncode == 0
    monkeypatch.setattr(command_of_encode, "SHARD", 100)
    encoder_of, calls = command_of_encode._encoder, []

    def stopped_at(number):
        def of(work):
            encode = encoder_of(work)

            def stopping(*arguments):
                calls.append(arguments)
                if len(calls) == number:
                    raise KeyboardInterrupt
                return encode(*arguments)

            return stopping

        return of

    monkeypatch.setattr(command_of_encode, "_encoder", stopped_at(3))
    assert _encode(own_data, weights["gray"], out="parts").returncode != 0
    assert not (own_data / "parts").exists()
    before = {file: file.stat().st_mtime_ns for file in (own_data / ".parts.encoding").glob("*.npy")}
    assert [file.name for file in sorted(before)] == ["000000000.npy", "000000100.npy"]
    monkeypatch.setattr(command_of_encode, "_encoder", stopped_at(6))
    join = command_of_encode._join
    looked = []
    monkeypatch.setattr(
        command_of_encode,
        "_join",
        lambda files, *rest: (looked.append({file: file.stat().st_mtime_ns for file in before}), join(files, *rest)),
    )
    done = _encode(own_data, weights["gray"], out="parts")
    assert done.returncode == 0, done.stderr
    assert looked == [before]
    assert len(calls) == 5
    for name in ("latents.npy", "labels.npy", "statistics.json", "source.json"):
        assert (own_data / "parts" / name).read_bytes() == (own_data / "whole" / name).read_bytes()


def test_the_beginning_of_other_work_is_not_gone_on_with(own_data, weights, monkeypatch):
    def full(*of):
        raise UserError("the disk is full")

    monkeypatch.setattr(command_of_encode, "_join", full)
    assert_one_line(_encode(own_data, weights["gray"]), "the disk is full")
    for other in (["--seed", 1], ["--keep", "draw"], ["--keep", "moments"], ["--flips"]):
        assert_one_line(
            _encode(own_data, weights["gray"], *other), "latents.encoding holds the beginning of other work"
        )
    assert_one_line(_encode(own_data, weights["colour"]), "holds the beginning of other work; remove it")


def test_what_cannot_be_encoded_is_refused_in_one_line(own_data, weights, tmp_path):
    wide = write_autoencoder(tmp_path / "wide", GRAY.clone(widths=(4,) * 5))
    assert_one_line(_encode(own_data, wide), "autoencoder needs sides that 16 divides, digits has 8 x 8")
    assert_one_line(_encode(own_data, tmp_path / "none.safetensors"), "autoencoder: ")
    pickled = tmp_path / "vae.pt"
    pickled.write_bytes(b"PK\x03\x04" + bytes(60))
    assert_one_line(_encode(own_data, pickled), "vae.pt")
    assert_one_line(_encode(own_data, weights["gray"], out="digits"), "digits exists already, and holds no latents")
    for out in ("../elsewhere", "a/b", ".hidden"):
        assert_one_line(_encode(own_data, weights["gray"], out=out), "out must be a name of letters, digits")
    assert_one_line(_encode(own_data, weights["gray"], "--seed", -1), "seed must be in 0..")
    assert _encode(own_data, weights["gray"]).returncode == 0
    assert_one_line(_encode(own_data, weights["gray"]), "latents holds latents already")


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    """The folder of a run of latents [4, 4, 2], of no step."""
    folder = tmp_path_factory.mktemp("run")
    settings = LatentData("latents", (4, 4, 2), num_classes=3, factor=0.5, shift=0.25)
    experiment = dataclasses.replace(
        PRESETS["digits"][1], run_dir=folder, data=settings, network=MLPNetwork(16, 8, 1),
        sampling=Sampling((1.0, 2.0), 2, 1),
    )  # fmt: skip
    run_folder.open_run(experiment)
    with checkpoints.Writer(run_folder.checkpoints_of(folder)) as writer:
        state = state_of(experiment, model_of(experiment, task_of(experiment, "shapes")))
        writer.save(0, state, ADAPTER.dump_python(experiment, mode="json"))
    return folder


def test_samples_of_latents_become_pictures(run_dir, weights, tmp_path):
    """Decoded from x / factor + shift, the scale that the run was trained in."""
    asked = ["--labels", 0, 2, "--num-steps", 2, "--out"]
    assert command("sample", run_dir, *asked, tmp_path / "latents.npz").returncode == 0
    images = tmp_path / "images.npz"
    done = command("sample", run_dir, "--autoencoder", weights["colour"], *asked, images)
    assert done.returncode == 0, done.stderr
    latents, found = np.load(tmp_path / "latents.npz"), np.load(images)
    assert (float(latents["factor"]), float(latents["shift"])) == (0.5, 0.25)
    network, params, _ = pretrained_autoencoder.read(weights["colour"] / "diffusion_pytorch_model.safetensors")
    expected = [network.apply(params, x / 0.5 + 0.25, method="decode") for x in latents["x"]]
    np.testing.assert_allclose(found["x"], np.stack(expected), rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(found["arr_0"], data.to_pixels(found["x"]))
    folder = f"{tmp_path}/each/"
    assert command("sample", run_dir, "--autoencoder", weights["colour"], *asked, folder).returncode == 0
    assert sorted(file.name for file in (tmp_path / "each").iterdir()) == ["000-label-0.png", "001-label-2.png"]


def test_an_autoencoder_that_does_not_fit_is_refused(run_dir, weights, trained_mixture, tmp_path):
    four = write_autoencoder(tmp_path / "four", GRAY.clone(latent_channels=4))
    out = ["--out", tmp_path / "samples.png"]
    assert_one_line(command("sample", run_dir, "--autoencoder", four, *out), "has latents of 4 channels, the run of 2")
    not_latents = command("sample", trained_mixture, "--autoencoder", weights["gray"], *out)
    assert_one_line(not_latents, "autoencoder is for runs of latents")
