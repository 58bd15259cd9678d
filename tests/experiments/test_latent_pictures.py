"""A run on latents as one on the pictures that they are decoded to: sheets, figures, films, what is said without."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from cfgjax import data
from cfgjax.data import DataError
from experiments.config.kinds import ImageData, LatentData
from experiments.config.schema import Sampling
from experiments.evaluation import images as image_report
from experiments.evaluation import latents as latent_report
from experiments.evaluation.feature_classifier import FeatureClassifier
from experiments.evaluation.fidelity import halves, reference_of
from experiments.evaluation.guided_samples import FREE
from experiments.evaluation.options import EvaluationOptions
from experiments.evaluation.reconstructions import reconstructions
from experiments.figures import image_grid
from experiments.presets.registry import PRESETS
from experiments.run import folder as run_folder
from experiments.run import launches
from experiments.run.autoencoder import decoder_of, digest_of, read_autoencoder
from experiments.run.decoder import Decoder
from experiments.run.restore import Run
from experiments.tasks import latent_pictures
from experiments.tasks.latent_scale import by_statistics
from experiments.tasks.registry import task_of, with_facts
from tests.experiments.test_resume import final_state
from tests.support.autoencoders import COLOUR, GRAY, write_autoencoder
from tests.support.commands import assert_one_line, command

pytest.importorskip("safetensors")

LATENTS = [
    "fashion_latents", "--data.folder", "latents", "--data.shape", 4, 4, 2, "--data.num-held-out", 40,
    "--network.width=16", "--network.depth=1", "--network.num-heads=2", "--batch-size=32", "--num-microbatches=1",
    "--num-steps=12", "--save-every=4", "--log-every=4", "--sampling.num-steps=2", "--sampling.num-per-class=2",
    "--sampling.scales", "1", "2",
]  # fmt: skip


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    return write_autoencoder(tmp_path_factory.mktemp("weights") / "gray", GRAY)


@pytest.fixture(scope="module")
def own_data(tmp_path_factory, data_dir, autoencoder):
    """Prepared digits, and the latents of their held-out split, by a network of random weights."""
    folder = tmp_path_factory.mktemp("own") / "data"
    shutil.copytree(data_dir / "digits", folder / "digits")
    done = command(
        "encode", "digits", "--data-dir", folder, "--split", "test", "--autoencoder", autoencoder, "--out", "latents"
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module", autouse=True)
def _any_classifier():
    """Pixels for features, and labels by the brightest of the first ten: what is measured here is not how well."""

    def of(settings, data_dir, train, test, is_kept=True):
        flat = lambda images: np.asarray(images).reshape(len(images), -1)  # noqa: E731
        return FeatureClassifier(flat, lambda images: flat(images)[:, :10], 0.5)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_report, "feature_classifier_of", of)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory, own_data, autoencoder):
    """A run with its autoencoder, what it printed, and the pictures of its sheets."""
    folder, shown = tmp_path_factory.mktemp("trained") / "run", []
    draw = image_grid.show_grid
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            image_grid, "show_grid", lambda axes, samples, *rest: (shown.append(samples), draw(axes, samples, *rest))
        )
        done = command(
            "train", *LATENTS, "--data-dir", own_data, "--run-dir", folder, "--autoencoder", autoencoder,
            "--samples-every", 6,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, done, shown


def test_encode_writes_which_pictures_the_latents_are_of(own_data, autoencoder):
    digest = digest_of(read_autoencoder(autoencoder))
    told = json.loads((own_data / "latents" / "source.json").read_text())
    assert told == {"pictures": "digits", "split": "test", "autoencoder": digest, "downsampling": 2}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[]", "does not read: : Input should be an object"),
        ('{"pictures": "../x", "split": "train", "autoencoder": "", "downsampling": 2}', "does not read: pictures: "),
        ('{"pictures": "digits", "split": "train", "autoencoder": "00", "downsampling": 2}', "does not read: autoenc"),
        ("{", "does not read: : Invalid JSON"),
    ],
)
def test_a_source_of_another_form_is_refused(content, expected, tmp_path):
    (tmp_path / "source.json").write_text(content)
    with pytest.raises(DataError, match=expected):
        latent_pictures.read(tmp_path, tmp_path)


def test_the_scale_is_that_of_the_folder_s_statistics(own_data):
    """Factor 1 / std and shift mean over all numbers, as learned, so that what is trained on has mean 0, std 1."""
    whole = np.load(own_data / "latents" / "latents.npy").astype(np.float64)
    run = _latent_run(own_data)
    settings = run.experiment.data
    np.testing.assert_allclose((settings.factor, settings.shift), (1 / whole.std(), whole.mean()), rtol=1e-6)
    assert run.task.scaling == (settings.factor, settings.shift)
    scaled = np.asarray(run.task.example(jax.random.key(0), (data.Views(whole), None))[0])
    np.testing.assert_allclose((scaled.mean(), scaled.std()), (0, 1), atol=1e-5)
    assert task_of(run.experiment).learned == {"factor": settings.factor, "shift": settings.shift}


def test_a_folder_without_statistics_is_measured_by_some_of_its_latents(own_data, tmp_path):
    """All of them here, where there are 360; a factor or a shift that is given is left as it is."""
    copied = shutil.copytree(own_data, tmp_path / "data")
    (copied / "latents" / "statistics.json").unlink()
    ours, told = _latent_run(copied).task.scaling, _latent_run(own_data).task.scaling
    np.testing.assert_allclose(ours, told, rtol=1e-6)
    experiment = _latent_run(copied).experiment
    given = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data, factor=None, shift=0.5))
    assert task_of(given).scaling == (ours[0], 0.5)


def test_channels_far_apart_count_in_the_overall_deviation():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 3)) * [1, 2, 3] + [10, 0, -4]
    found = by_statistics(values.mean(axis=0), values.std(axis=0))
    np.testing.assert_allclose(found, (1 / values.std(), values.mean()), rtol=1e-12)


@pytest.mark.slow
def test_a_run_keeps_the_scale_that_it_began_with(trained, own_data, tmp_path):
    """What the folder tells later changes nothing of it."""
    changed = shutil.copytree(own_data, tmp_path / "data")
    told = json.loads((changed / "latents" / "statistics.json").read_text())
    told["std"] = [1.25 * std for std in told["std"]]
    (changed / "latents" / "statistics.json").write_text(json.dumps(told))
    run_dir = shutil.copytree(trained[0], tmp_path / "run")
    before = run_folder.read_config(run_dir).data
    done = command("train", *LATENTS, "--data-dir", changed, "--run-dir", run_dir)
    assert done.returncode == 0, done.stderr
    assert run_folder.read_config(run_dir).data == before
    assert _latent_run(changed).task.scaling[0] < 0.95 * before.factor


def _pictures(run_dir, autoencoder, latents):
    settings = run_folder.read_config(run_dir).data
    return decoder_of(autoencoder, (4, 4, 2), (settings.factor, settings.shift)).decode_all(latents)


@pytest.mark.slow
def test_the_last_sheet_shows_what_the_report_s_latents_are_decoded_to(trained, autoencoder):
    run_dir, _, shown = trained
    assert sorted(file.name for file in (run_dir / "samples").iterdir()) == ["12.png", "6.png"]
    stored = np.load(run_dir / "samples-classifier-free-heun.npz")["latents"]
    expected = _pictures(run_dir, autoencoder, stored[:, :, 0])
    assert expected.shape == (2, 10, 8, 8, 1)
    np.testing.assert_allclose(shown[1], expected, rtol=1e-3, atol=1e-3)
    assert np.abs(shown[0] - expected).max() > 0.01


@pytest.mark.slow
def test_a_resumed_run_with_an_autoencoder_has_the_bits_of_one_without(trained, own_data, tmp_path):
    """Sheets are drawn in one and not in the other, which stops after its second save."""
    run_dir = tmp_path / "run"
    shutil.copytree(trained[0], run_dir)
    shutil.rmtree(run_folder.checkpoints_of(run_dir) / "12")
    shutil.rmtree(run_dir / "samples")
    done = command("train", *LATENTS, "--data-dir", own_data, "--run-dir", run_dir)
    assert done.returncode == 0, done.stderr
    assert f"resuming {run_dir} at step 8 of 12" in done.stdout
    jax.tree.map(np.testing.assert_array_equal, final_state(trained[0]), final_state(run_dir))
    hints = [line for line in done.stdout.splitlines() if "--autoencoder" in line]
    assert len(hints) == 2
    assert all("gray, as the run was started before, to see and measure" in line for line in hints)


def _latent_run(own_data, scales=(1.0, 2.0)):
    """A run of no step on the latents."""
    settings = LatentData("latents", (4, 4, 2), 10, factor=None, shift=None, num_held_out=40)
    preset = PRESETS["fashion_latents"][1]
    experiment = dataclasses.replace(preset, data=settings, data_dir=own_data, sampling=Sampling(scales, 2, 2))
    task = task_of(experiment)
    return Run(with_facts(experiment, task), task, None, None)


def test_figures_are_those_of_the_same_pictures_as_pixels(own_data, autoencoder, monkeypatch, tmp_path):
    """A run on pixels that draws what the latents are decoded to has every figure of the run on latents."""
    rng, scales = np.random.default_rng(0), {FREE: (1.0, 2.0)}
    latents = {(FREE, solver): rng.normal(size=(2, 10, 2, 4, 4, 2)) for solver in ("heun", "euler_maruyama")}
    run = _latent_run(own_data)
    decoder = decoder_of(autoencoder, (4, 4, 2), run.task.scaling)
    monkeypatch.setattr(latent_report, "guided_draws", lambda *_: (latents, scales))
    folders = {name: tmp_path / name for name in ("latents", "pixels")}
    for folder in folders.values():
        folder.mkdir()
    found = run.task.evaluate(run, EvaluationOptions(decoder=decoder), folders["latents"], {})
    pictures = {rule: decoder.decode_all(its) for rule, its in latents.items()}
    settings = ImageData("digits", train_split="test", test_split="train")
    experiment = dataclasses.replace(
        PRESETS["digits"][1], data=settings, data_dir=own_data, sampling=Sampling((1.0, 2.0), 2, 2)
    )
    run = Run(experiment, task_of(experiment), None, None)
    monkeypatch.setattr(image_report, "guided_draws", lambda *_: (pictures, scales))
    expected = run.task.evaluate(run, EvaluationOptions(), folders["pixels"], {})
    assert {name: found[name] for name in expected} == expected
    assert found.keys() - expected.keys() == {"reconstructions", "pictures"}
    for name in ("curves.csv", "samples.png", "curves.png"):
        assert (folders["pixels"] / name).read_bytes() == (folders["latents"] / name).read_bytes()


def _identity(place=None):
    return Decoder((8, 8, 1), lambda latents: latents, lambda images: images, place, "another")


def test_an_autoencoder_that_loses_nothing_sets_the_floor_of_real_pictures(own_data):
    """Then the reconstructions' distances are those of real against real; else the error is the mean square."""
    test = data.load("digits", "train", own_data)
    reference = reference_of(image_report.feature_classifier_of(None, None, test, test), test)
    found = reconstructions(_identity(), reference, test, 100)
    assert (found["rms"], found["psnr"]) == (0, np.inf)
    real = image_report.real_vs_real(reference, 100)
    assert {name: found[name] for name in real} == real
    gray = _identity()._replace(reconstruct=lambda images: 0.5 * images - 0.5)
    found = reconstructions(gray, reference, test, 100)
    images = test.image[halves(len(test.label))[1]]
    np.testing.assert_allclose(found["rms"], np.sqrt(np.mean(np.square(0.5 * images + 0.5))), rtol=1e-6)
    np.testing.assert_allclose(found["psnr"], 20 * np.log10(2 / found["rms"]), rtol=1e-6)
    assert found["frechet"] > real["frechet"]


def test_reconstructions_are_of_the_pictures_that_are_no_reference(own_data, autoencoder):
    train = data.load("digits", "train", own_data)
    reference = reference_of(image_report.feature_classifier_of(None, None, train, train), train)
    found = reconstructions(decoder_of(autoencoder, (4, 4, 2), (0.5, 0.25)), reference, train, 20)
    rest = halves(len(train.label))[1]
    network, params, _ = read_autoencoder(autoencoder)
    again = jax.jit(jax.vmap(lambda image: network.apply(params, image)))(train.image[rest])
    error = np.clip(again, -1, 1) - train.image[rest]
    np.testing.assert_allclose(found["rms"], np.sqrt(np.mean(np.square(error))), rtol=1e-4)
    assert (found["num_images"], found["num_samples"]) == (len(rest), 20)


def test_gray_pictures_of_an_autoencoder_of_colours_are_the_mean_of_its_channels(tmp_path):
    folder = write_autoencoder(tmp_path / "colour", COLOUR, 1)
    decoder, rng = decoder_of(folder, (4, 4, 2), (0.5, 0.25)), np.random.default_rng(0)
    latents, images = rng.normal(size=(3, 4, 4, 2)), rng.uniform(-1, 1, (3, 8, 8, 1))
    gray = decoder.in_gray()
    np.testing.assert_array_equal(gray.decode_all(latents)[..., 0], decoder.decode_all(latents).mean(axis=-1))
    of_three = decoder.reconstruct(np.repeat(images, 3, axis=-1))
    np.testing.assert_array_equal(gray.reconstruct(images)[..., 0], of_three.mean(axis=-1))


@pytest.mark.slow
def test_without_an_autoencoder_each_command_says_what_to_add(trained, own_data, autoencoder, tmp_path):
    """And does what it did: latents in a file, no picture."""
    run_dir = shutil.copytree(trained[0], tmp_path / "run")
    for name in ("starts.jsonl", "samples.png", "by_scale.npz", "metrics.json", "curves.png", "curves.csv"):
        (run_dir / name).unlink()
    done = command("evaluate", run_dir, "--solver", "heun")
    assert done.returncode == 0, done.stderr
    said = "samples are kept as latents; add --autoencoder PATH, the weights or the run that encoded them, to see"
    assert next(line for line in done.stdout.splitlines() if "--autoencoder" in line).startswith(said)
    names = sorted(file.name for file in (run_dir / "evaluation").iterdir())
    assert names == ["metrics.json", "samples-classifier-free-heun.npz"]
    done = command("report", run_dir)
    assert done.stdout.startswith(said)
    assert (run_dir / "report.html").read_text().count("data:image/png") == 2
    done = command("report", run_dir, "--autoencoder", autoencoder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--autoencoder" not in done.stdout
    assert (run_dir / "report.html").read_text().count("data:image/png") == 4 + 6  # the slider has those of each scale


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], None),
        (['{"step": 0}', "{", '{"step": 0, "autoencoder": 3}'], None),
        (['{"step": 0, "autoencoder": "vae"}', '{"step": 4, "autoencoder": "a\\u001bb"}', '{"step": 8}'], "a\\x1bb"),
    ],
)
def test_the_autoencoder_of_an_earlier_start_is_found_and_speaks_to_no_terminal(lines, expected, tmp_path):
    (tmp_path / "starts.jsonl").write_text("\n".join(lines))
    assert launches.last_autoencoder(tmp_path) == expected
    hint = "add --autoencoder PATH, the weights" if expected is None else f"add --autoencoder {expected}, as the run"
    assert launches.autoencoder_hint(tmp_path).startswith(hint)
    assert launches.last_autoencoder(tmp_path / "none") is None


@pytest.mark.slow
def test_stored_latents_of_another_run_are_a_trouble_of_the_page(trained, autoencoder, tmp_path):
    run_dir = shutil.copytree(trained[0], tmp_path / "run")
    (run_dir / "samples.png").unlink()
    np.savez(run_dir / "samples-classifier-free-heun.npz", latents=np.zeros((2, 3, 1, 4, 4, 2)), scales=np.ones(2))
    done = command("report", run_dir, "--autoencoder", autoencoder)
    assert done.returncode == 0, done.stderr
    assert "holds no samples (10, 1, 4, 4, 2) of this run at each scale" in (run_dir / "report.html").read_text()


@pytest.mark.slow
def test_pictures_that_are_not_there_are_named(trained, own_data, autoencoder, tmp_path):
    """Samples are drawn all the same, the first of each label."""
    alone = tmp_path / "data"
    shutil.copytree(own_data / "latents", alone / "latents")
    asked = [
        trained[0],
        "--solver",
        "heun",
        "--data-dir",
        alone,
        "--autoencoder",
        autoencoder,
        "--out",
        tmp_path / "out",
    ]
    done = command("evaluate", *asked)
    assert done.returncode == 0, done.stderr
    start = "warning: samples become pictures that are not measured: "
    why = (
        f"the latents are of digits, which is not prepared in {alone}: python -m experiments.prepare digits --data-dir"
    )
    assert done.stderr.startswith(f"{start}{why}")
    assert len(done.stderr.strip().splitlines()) == 1
    assert (tmp_path / "out" / "samples.png").exists()
    (alone / "latents" / "source.json").unlink()
    done = command("evaluate", *asked)
    assert done.stderr.startswith(f"{start}latents has no source.json, which tells its pictures")


def test_other_weights_than_those_that_encoded_are_told(own_data, autoencoder, tmp_path, capsys):
    experiment = _latent_run(own_data).experiment
    other = write_autoencoder(tmp_path / "other", GRAY, 7)
    capsys.readouterr()
    for place in (autoencoder, other):
        latent_pictures.warn_of_other_weights(experiment, decoder_of(place, (4, 4, 2), (1.0, 0.0)))
    expected = f"warning: the latents of digits were encoded by another autoencoder than {other}\n"
    assert capsys.readouterr().err == expected
    latent_pictures.warn_of_other_weights(dataclasses.replace(experiment, data_dir=tmp_path), _identity(other))
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_each_command_tells_of_other_weights_in_one_line(trained, own_data, tmp_path):
    """Before a run goes on, too, though nothing is measured."""
    other, run_dir = write_autoencoder(tmp_path / "other", GRAY, 7), shutil.copytree(trained[0], tmp_path / "run")
    wrong = ["--autoencoder", other]
    for asked in (
        ["train", *LATENTS, "--data-dir", own_data, "--run-dir", run_dir],
        ["evaluate", run_dir, "--solver", "heun"],
        ["sample", run_dir, "--labels", 1, "--num-steps", 2, "--out", tmp_path / "drawn.png"],
        ["report", run_dir],
    ):
        done = command(*asked, *wrong)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("were encoded by another autoencoder than") == 1


def test_pictures_of_another_shape_than_what_is_decoded_are_not_compared(own_data):
    run = _latent_run(own_data)
    pictures = latent_pictures.pictures_of(run.experiment, run.experiment.data)
    with pytest.raises(
        latent_pictures.NoPicturesError, match=r"digits has pictures \(8, 8, 1\), the autoencoder gives"
    ):
        latent_report._require_fit(run, pictures, _identity()._replace(shape=(16, 16, 1)))


@pytest.mark.slow
def test_frames_of_a_film_are_pictures(trained, autoencoder, tmp_path):
    asked = ["sample", trained[0], "--labels", 1, 4, "--num-steps", 2, "--trajectory", "--out"]
    assert command(*asked, tmp_path / "latents.npz").returncode == 0
    done = command(*asked, tmp_path / "film.npz", "--autoencoder", autoencoder)
    assert done.returncode == 0, done.stderr
    latents, film = (np.load(tmp_path / f"{name}.npz")["x"] for name in ("latents", "film"))
    assert film.shape == (2, 3, 8, 8, 1)
    np.testing.assert_allclose(film, _pictures(trained[0], autoencoder, latents), rtol=1e-4, atol=1e-4)
    done = command(*asked, tmp_path / "film.gif")
    assert_one_line(done, "samples of shape (4, 4, 2): they are no pictures; --autoencoder decodes latents")


def test_an_autoencoder_is_refused_before_a_run_on_pictures_begins(own_data, autoencoder, tmp_path):
    done = command(
        "train", "digits", "--data-dir", own_data, "--run-dir", tmp_path / "run", "--autoencoder", autoencoder
    )
    assert_one_line(done, "autoencoder is for runs of latents")
    assert not (tmp_path / "run").exists()
