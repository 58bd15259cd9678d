"""Frechet distances in a space whose weights are named: what they are compared with, and what the command says."""

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cfgjax import data, metrics
from cfgjax.models import pretrained_inception
from cfgjax.models.inception import FIDInception
from cfgjax.models.inception_inputs import pytorch_fid_input
from experiments.cli.main import UserError
from experiments.evaluate import MeasureOptions, Options, _require_usable
from experiments.evaluation import frechet
from experiments.evaluation.frechet import FrechetMeasure, in_colour, of_user
from experiments.evaluation.inception import frechet_measure, inception_spaces
from experiments.run.restore import Run
from experiments.tasks.objectives import OBJECTIVES
from tests.support import inception_by_hand
from tests.support.commands import assert_one_line, command

RNG = np.random.default_rng(0)
TRAIN = RNG.integers(0, 256, (60, 4, 4, 1), np.uint8)
DRAWS = {
    ("classifier-free", "heun"): RNG.normal(size=(2, 3, 10, 4, 4, 1)),
    ("classifier-free", "euler"): RNG.normal(size=(1, 3, 10, 4, 4, 1)),
}


def _tops(pictures):
    """The first rows: 12 features."""
    return pictures[:, 0].reshape(len(pictures), -1).astype(np.float32)


def _diagonals(pictures):
    return np.stack([pictures[:, i, i, 0] for i in range(4)], axis=1) / 255


TWO = {
    "tensorflow": lambda pictures: {"fid": _tops(pictures), "sfid": _diagonals(pictures)},
    "pytorch_fid": lambda pictures: {"fid": _tops(pictures) + 1, "sfid": 2 * _diagonals(pictures)},
}


def _pictures(samples):
    return in_colour(data.to_pixels(samples.reshape(-1, 4, 4, 1)))


def _measure(spaces, reference=None, laws=None):
    return FrechetMeasure(spaces, {"weights": "a"}, reference, laws or {}).measure(DRAWS, TRAIN)


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    """Pictures are read in many parts."""
    monkeypatch.setattr(frechet, "_PART", 7)


def test_every_rule_solver_and_scale_is_compared_with_the_training_pictures(capsys):
    found, facts = _measure(TWO)
    real = in_colour(TRAIN)
    each = [samples for its in DRAWS.values() for samples in its]
    assert len(found) == 3
    for row, samples in zip(found, each, strict=True):
        fid = metrics.frechet_distance(_tops(_pictures(samples)), _tops(real))
        sfid = metrics.frechet_distance(_diagonals(_pictures(samples)), _diagonals(real))
        expected = {
            "fid_tensorflow": fid, "fid_pytorch_fid": fid, "fid_difference": 0.0,
            "sfid_tensorflow": sfid, "sfid_pytorch_fid": 4 * sfid, "sfid_difference": 3 * sfid,
        }  # fmt: skip
        assert row == pytest.approx(expected, rel=1e-6, abs=1e-4)
    assert facts == {"weights": "a", "reference": "training pictures", "num_reference": 60, "num_samples": 30}
    said = capsys.readouterr().err
    assert "Frechet distances of 30 samples are biased upwards" in said and "50,000" in said


def test_figures_are_compared_with_the_statistics_of_a_file(tmp_path):
    """Spatial ones, too, where the file has them."""
    file, real = tmp_path / "reference.npz", in_colour(TRAIN)
    laws = {"fid": metrics.feature_statistics(_tops(real))}
    np.savez(file, mu=laws["fid"].mean, sigma=laws["fid"].covariance)
    found, facts = _measure({"tensorflow": TWO["tensorflow"]}, file, laws)
    expected, _ = _measure({"tensorflow": TWO["tensorflow"]})
    assert [list(row) for row in found] == [["fid_tensorflow"]] * 3
    for row, other in zip(found, expected, strict=True):
        assert row["fid_tensorflow"] == pytest.approx(other["fid_tensorflow"], rel=1e-6)
    assert facts["reference_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert "num_reference" not in facts


@pytest.mark.parametrize("pictures", [TRAIN, in_colour(TRAIN)])
def test_figures_are_compared_with_the_pictures_of_a_file(pictures, tmp_path):
    np.savez(tmp_path / "reference.npz", pictures)
    found, facts = _measure(TWO, tmp_path / "reference.npz")
    assert found == _measure(TWO)[0]
    assert (facts["reference"], facts["num_reference"]) == ("reference.npz", 60)


def test_the_real_pictures_themselves_are_at_no_distance():
    own = (TRAIN / 127.5 - 1).reshape(1, 3, 20, 4, 4, 1)
    found, _ = FrechetMeasure(TWO, {}, None, {}).measure({("classifier-free", "heun"): own}, TRAIN)
    assert max(map(abs, found[0].values())) < 1e-6


def test_a_function_of_ones_own_is_given_its_weights_once():
    given = []
    spaces = of_user(lambda weights: given.append(weights) or _tops, "weights.safetensors")
    found, _ = _measure(spaces)
    assert given == ["weights.safetensors"]
    assert [list(row) for row in found] == [["fd"]] * 3
    assert found[0]["fd"] == pytest.approx(_measure(TWO)[0][0]["fid_tensorflow"])


@pytest.mark.parametrize("made", [lambda weights: None, lambda weights: lambda pictures: pictures.mean((1, 2, 3))])
def test_a_function_that_gives_no_features_is_refused(made):
    with pytest.raises(UserError, match=r"^features must give "):
        _measure(of_user(made, "weights"))


def test_a_reference_of_other_features_is_refused():
    with pytest.raises(UserError, match=r"^reference: samples, mean and covariance must be \[n, d\], \[d\] and"):
        _measure(TWO, laws={"fid": (np.zeros(3), np.eye(3))}, reference=None)


def test_a_reference_without_statistics_or_pictures_is_refused(tmp_path):
    np.savez(tmp_path / "reference.npz", x=np.ones(3))
    (tmp_path / "weights").write_bytes(b"")
    with pytest.raises(data.DataError, match=r"array 'arr_0' of .* does not read: there is none"):
        frechet_measure("inception", tmp_path / "weights", tmp_path / "reference.npz", None)


def test_statistics_of_other_features_than_the_inceptions_are_refused(tmp_path):
    np.savez(tmp_path / "reference.npz", mu=np.zeros(64), sigma=np.eye(64))
    (tmp_path / "weights").write_bytes(b"")
    with pytest.raises(UserError, match=r"must hold statistics of 2048 features for fid, got 64"):
        frechet_measure("inception", tmp_path / "weights", tmp_path / "reference.npz", None)


@pytest.mark.parametrize(
    ("covariance", "complaint"),
    [([[1.0, 0.5], [0.0, 1.0]], "must be symmetric"), ([[1.0, 0.0], [0.0, -1.0]], "must have no eigenvalue below 0")],
)
def test_a_covariance_that_is_none_is_refused_before_anything_is_drawn(covariance, complaint, tmp_path):
    file = tmp_path / "reference.npz"
    np.savez(file, mu=np.zeros(2), sigma=np.array(covariance))
    (tmp_path / "weights").write_bytes(b"")
    with pytest.raises(UserError, match=f"^reference {file}, statistics for fd: covariance {complaint}"):
        frechet_measure(row_means, tmp_path / "weights", file, None)


@pytest.mark.parametrize(("scaling", "hint"), [((1.0, 0.0), "; of latents features need --autoencoder"), (None, "")])
def test_features_of_latents_need_what_makes_pictures_of_them(scaling, hint):
    options = Options(Path("a"), measures=MeasureOptions(features="inception", weights=Path("b")))
    task = SimpleNamespace(measures_images=False, scaling=scaling, objective=OBJECTIVES["field"])
    run = Run(*[None] * len(Run._fields))._replace(task=task)
    with pytest.raises(UserError, match=f"^likelihood, .* need a run on labelled pictures, not a{hint}$"):
        _require_usable(options, run)


def row_means(weights):
    """Features by a network of a user's own: none, whose weights are not looked at."""
    return lambda pictures: pictures.mean((2, 3), dtype=np.float32)


OWN = ("--features", "tests.experiments.test_frechet:row_means")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--features", "inception"], "features inception needs --weights FILE"),
        (["--weights", "a"], "weights need --features inception, or a function of your own"),
        ([*OWN, "--reference", "a"], "reference needs --features and --weights"),
        ([*OWN, "--convention", "tensorflow"], "convention needs --features inception"),
        ([*OWN, "--weights", "nowhere"], "weights must be a file, there is none at nowhere"),
        (["--features", "inception", "--weights", "README.md"], "weights: README.md: "),
    ],
)
def test_options_that_do_not_belong_together_are_refused(arguments, complaint, trained_digits):
    assert_one_line(command("evaluate", trained_digits, *arguments), complaint)


@pytest.mark.slow
def test_the_distances_of_ones_own_weights_are_in_the_report(trained_clothes, tmp_path):
    (tmp_path / "weights").write_bytes(b"weights")
    done = command(
        "evaluate", trained_clothes, "--solver", "euler", *OWN, "--weights", tmp_path / "weights", "--out", tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert all(row["fd"] > 0 and "frechet" in row for row in found["samples"])
    assert found["frechet_distances"]["features"] == "row_means"
    assert found["frechet_distances"]["weights_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert f"classifier-free, euler, w = 0: fd {found['samples'][0]['fd']:.3f}" in done.stdout


@pytest.mark.slow
def test_features_are_the_networks_of_each_picture(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    tensors = inception_by_hand.random_tensors(pretrained_inception.shapes_of())
    safetensors.save_file(tensors, tmp_path / "weights")
    (features,) = inception_spaces(tmp_path / "weights", "pytorch_fid").values()
    pictures = RNG.integers(0, 256, (3, 8, 8, 3), np.uint8)
    found = features(pictures)
    params = pretrained_inception.parameters(tensors.__getitem__)
    for index, picture in enumerate(pictures):
        expected = FIDInception().apply(params, pytorch_fid_input(picture))
        np.testing.assert_allclose(found["fid"][index], expected.pool, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found["sfid"][index], expected.spatial.ravel(), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_fid_of_a_run_of_digits(trained_digits, tmp_path):
    """By random weights, in both conventions, against the pictures in an .npz that `sample` wrote."""
    safetensors = pytest.importorskip("safetensors.numpy")
    weights, reference = tmp_path / "inception.safetensors", tmp_path / "reference.npz"
    safetensors.save_file(inception_by_hand.random_tensors(pretrained_inception.shapes_of()), weights)
    assert command("sample", trained_digits, "--num-samples", 6, "--out", reference).returncode == 0
    few = ["--solver", "euler", "--scales", 2, "--num-per-class", 1, "--out", tmp_path]
    options = ["--features", "inception", "--weights", weights, "--reference", reference]
    done = command("evaluate", trained_digits, *few, *options)
    assert done.returncode == 0, done.stderr
    assert "biased upwards" in done.stderr
    (row,) = json.loads((tmp_path / "metrics.json").read_text())["samples"]
    for figure in ("fid", "sfid"):
        assert 0 < row[f"{figure}_tensorflow"] != row[f"{figure}_pytorch_fid"]
        difference = row[f"{figure}_pytorch_fid"] - row[f"{figure}_tensorflow"]
        assert row[f"{figure}_difference"] == pytest.approx(difference)
    assert "w = 2: fid_tensorflow " in done.stdout
