"""What experiments.sample leaves: from the run's folder alone, exact to the pixel, whole or not at all, and signed."""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cfgjax import data, guidance, mixtures, paths, solvers
from experiments.cli.main import UserError
from experiments.config import samplers
from experiments.config.kinds import LatentData
from experiments.config.samplers import classifier_free, make_draw, times
from experiments.presets.registry import PRESETS
from experiments.run import batch_sampling
from experiments.run import folder as run_folder
from experiments.run.batch_sampling import draw_all, equal_parts
from experiments.run.provenance import digest
from experiments.run.restore import restore_field, restore_run
from experiments.sample import output
from experiments.sample.guided import rule_of
from experiments.sample.options import GuidanceOptions, OutputOptions
from experiments.tasks.label_names import labels_called
from experiments.tasks.latents import samples_of as latents_as
from experiments.tasks.mixture import samples_of as points_about
from experiments.tasks.registry import facts_of, task_of, with_facts
from tests.support.commands import assert_one_line, command

FEW = ["--labels", 3, 10, "--num-samples", 3, "--num-steps", 4, "--seed", 5]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, trained_digits):
    """A run of the digits whose data set is nowhere."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    shutil.copytree(trained_digits, run_dir)
    _change(run_dir, lambda config: config | {"data_dir": str(run_dir / "nowhere")})
    return run_dir


def _change(run_dir, change):
    file = run_dir / "config.json"
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


def _sample(run_dir, *arguments):
    done = command("sample", run_dir, *arguments)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def arrays(alone):
    """The samples of FEW, as numbers, and what was seen on the way."""
    _sample(alone, *FEW, "--out", alone / "few.npz")
    _sample(alone, *FEW, "--trajectory", "--out", alone / "animation.npz")
    return np.load(alone / "few.npz"), np.load(alone / "animation.npz")


def test_a_run_is_sampled_where_its_data_are_missing(alone, arrays):
    assert arrays[0]["x"].shape == (3, 8, 8, 1)
    assert arrays[0]["y"].tolist() == [3, 10, 3]
    assert_one_line(command("evaluate", alone), "is not prepared")


def test_a_run_that_does_not_tell_its_shape_needs_its_data(alone, arrays, tmp_path, data_dir):
    shutil.copytree(alone, tmp_path / "old")
    _change(tmp_path / "old", lambda config: config | {"data": config["data"] | {"shape": None, "num_classes": None}})
    out = tmp_path / "old.npz"
    assert_one_line(command("sample", tmp_path / "old", *FEW, "--out", out), "experiments.prepare digits")
    _sample(tmp_path / "old", *FEW, "--data-dir", data_dir, "--out", out)
    np.testing.assert_array_equal(np.load(out)["x"], arrays[0]["x"])


def test_settings_that_tell_the_data_s_shape_go_on_from_those_that_do_not():
    told = PRESETS["digits"][1]
    untold = dataclasses.replace(told, data=dataclasses.replace(told.data, shape=None, num_classes=None))
    whole = dataclasses.replace(told, data=dataclasses.replace(told.data, absent_labels=()))
    assert with_facts(untold, task_of(told, "shapes")) == whole
    assert run_folder._difference(untold, told) is None
    other = dataclasses.replace(told, data=dataclasses.replace(told.data, num_classes=11))
    assert run_folder._difference(other, told) == ("data.num_classes", 11, 10)


@pytest.mark.parametrize("shape", [[65536, 65536, 1], [8, 8, 3]])
def test_an_untrusted_shape_is_refused(shape, alone, tmp_path):
    shutil.copytree(alone, tmp_path / "run")
    _change(tmp_path / "run", lambda config: config | {"data": config["data"] | {"shape": shape}})
    assert command("sample", tmp_path / "run", *FEW, "--out", tmp_path / "x.npz").returncode == 2
    assert not (tmp_path / "x.npz").exists()


def test_a_picture_each_holds_the_pixels_of_the_arrays(alone, arrays, tmp_path):
    _sample(alone, *FEW, "--out", f"{tmp_path}/each/")
    names = ["000-label-3.png", "001-label-null.png", "002-label-3.png"]
    assert sorted(file.name for file in (tmp_path / "each").iterdir()) == names
    for name, sample in zip(names, arrays[0]["x"], strict=True):
        np.testing.assert_array_equal(Image.open(tmp_path / "each" / name), data.to_pixels(sample)[..., 0])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["each"]


def test_the_arrays_of_pictures_hold_their_pixels_for_fid_tools(arrays):
    """ADM's evaluator (openai/guided-diffusion, evaluations/evaluator.py) reads arr_0, [n, H, W, C] uint8."""
    few, animation = arrays
    assert few["arr_0"].dtype == np.uint8
    np.testing.assert_array_equal(few["arr_0"], data.to_pixels(few["x"]))
    assert "arr_0" not in animation
    settings = LatentData(Path("latents"), (8, 8, 1), factor=0.25, shift=0.5)
    latents = latents_as(settings).arrays(few["x"], few["y"])
    assert set(latents) == {"x", "y", "factor", "shift"}
    assert (float(latents["factor"]), float(latents["shift"])) == (0.25, 0.5)
    assert set(points_about(2.0).arrays(few["x"].reshape(3, -1), few["y"])) == {"x", "y"}


def test_a_folder_with_something_in_it_is_left_as_it_is_and_an_empty_one_is_filled(alone, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("kept")
    assert_one_line(command("sample", alone, *FEW, "--out", tmp_path / "full"), "holds something")
    assert [file.name for file in (tmp_path / "full").iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    _sample(alone, *FEW, "--out", tmp_path / "empty")
    assert len(list((tmp_path / "empty").iterdir())) == 3
    assert_one_line(command("sample", alone, *FEW, "--out", f"{tmp_path}/full/mine/"), "is a file, not a folder")


def test_a_trajectory_goes_from_the_noise_to_the_sample(arrays):
    few, seen = arrays[0]["x"], arrays[1]["x"]
    assert seen.shape == (3, 5, 8, 8, 1)
    np.testing.assert_allclose(seen[:, -1], few, rtol=1e-5, atol=1e-5)
    for index in range(3):
        key = jax.random.split(jax.random.fold_in(jax.random.key(5), index))[0]
        np.testing.assert_array_equal(seen[index, 0], jax.random.normal(key, (8, 8, 1)))


@pytest.mark.parametrize(("suffix", "last"), [("gif", 2000), ("apng", 2000)])
def test_a_film_shows_every_time_and_holds_the_last(suffix, last, alone, arrays, tmp_path):
    _sample(alone, *FEW, "--trajectory", "--out", tmp_path / f"animation.{suffix}")
    with Image.open(tmp_path / f"animation.{suffix}") as animation:
        assert animation.n_frames == 5
        for index in range(5):
            animation.seek(index)
            pixels = np.asarray(animation.convert("L"))[4::8, 4::8]
            for place, sample in zip([(0, 0), (0, 9), (9, 0)], arrays[1]["x"][:, index], strict=True):
                tile = pixels[place[0] : place[0] + 8, place[1] : place[1] + 8]
                np.testing.assert_array_equal(tile, data.to_pixels(sample)[..., 0])
        assert animation.info["duration"] == last


def test_what_is_expected_at_the_end_is_the_sample_at_the_end():
    """On the oracle: at t = 1 the denoised prediction is the state, at t = 0 it is the label's mean."""
    path, mixture = paths.linear(), mixtures.ring(8)
    rule = classifier_free(mixture.vector_field(path), 8)
    draw = make_draw(rule, path, (2,), "heun", times(path, 8), watch=samplers.denoised(path))
    seen = draw(jax.random.key(0), jnp.int32(3), 1.0)
    at = make_draw(rule, path, (2,), "heun", times(path, 8))(jax.random.key(0), jnp.int32(3), 1.0)
    np.testing.assert_allclose(seen[0], mixture.means[3].reshape(2), atol=1e-5)
    np.testing.assert_allclose(seen[-1], at, atol=1e-5)


def test_a_film_of_points_has_a_frame_for_every_time(trained_mixture, tmp_path):
    _sample(
        trained_mixture, "--num-steps", 3, "--solver", "euler_maruyama", "--trajectory", "--out", tmp_path / "a.gif"
    )
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames == 4
        assert animation.size == (600, 600)
        animation.seek(3)
        assert np.asarray(animation.convert("RGB")).std() > 5
    assert_one_line(command("sample", trained_mixture, "--out", f"{tmp_path}/each/"), "they are no images")


@pytest.mark.parametrize("name", ["a.png", "a.npz", "a.gif", "a.apng", "each/"])
def test_a_file_says_how_it_was_made(name, alone, tmp_path):
    out = f"{tmp_path}/{name}"
    animation = ["--trajectory"] if name[-3:] in ("gif", "png") and name != "a.png" else []
    _sample(alone, *FEW, *animation, "--out", out)
    rows = dict(
        line.split(maxsplit=1)
        for line in command("provenance", f"{out}000-label-3.png" if name == "each/" else out).stdout.splitlines()
    )
    asked = " ".join(["python -m experiments.sample", str(alone), *map(str, [*FEW, *animation, "--out", out])])
    assert rows["command"] == asked
    assert rows["step"] == "40"
    assert rows["version"] == "0.1.0"
    assert len(rows["settings"]) == 16


def test_the_settings_digest_follows_the_settings_that_count(alone):
    run = restore_field(alone)
    changed = lambda **fields: digest(run._replace(experiment=dataclasses.replace(run.experiment, **fields)))  # noqa: E731
    assert changed(save_every=11, run_dir=alone / "x") == digest(run)
    assert changed(seed=1) != digest(run)


def test_files_that_do_not_say_how_they_were_made_are_refused(tmp_path):
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    Image.new("L", (2, 2)).save(tmp_path / "a.gif")
    np.savez(tmp_path / "a.npz", x=np.zeros(2))
    (tmp_path / "a.txt").write_text("text")
    for name in ("a.png", "a.gif", "a.npz", "a.txt"):
        assert_one_line(command("provenance", tmp_path / name), "does not say how it was made")
    assert_one_line(command("provenance", tmp_path / "none.png"), "is no file")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(OSError, match="No space left") as full, output.whole_file(tmp_path / "a") as temporary:
        temporary.write_text("ne")
        raise OSError(28, "No space left on device")
    assert full.value.filename == str(tmp_path / "a")
    with pytest.raises(OSError, match="No space"), output.whole_folder(tmp_path / "b") as temporary:
        (temporary / "c").write_text("")
        raise OSError(28, "No space left on device")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"
    with output.whole_file(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a").read_text() == "new"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--out", "a.gif"], ".gif is for a --trajectory, got out a.gif"),
        (["--trajectory", "--out", "a.png"], "out must end in .gif, .apng or .npz for a trajectory, got a.png"),
        (["--trajectory", "--solver", "adaptive", "--out", "a.gif"], "solver must be one of a fixed grid"),
        (["--show", "denoised", "--out", "a.png"], "show is for a --trajectory"),
        (["--num-samples", "1000000", "--out", "a.png"], "num_samples must be smaller"),
        (["--num-samples", 10**15, "--out", "a.npz"], "num_samples would take"),
        (["--trajectory", "--num-steps", "100000", "--out", "a.gif"], "in each of 100001 frames"),
        (["--trajectory", "--num-samples", 10**6, "--num-steps", 10**6, "--out", "a.npz"], "num_samples x num_steps"),
    ],
)
def test_what_cannot_be_written_is_refused_before_it_is_drawn(arguments, expected, alone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_one_line(command("sample", alone, *arguments), expected)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("num_rows", "num_devices", "least"), [(5, 1, 2), (1000, 1, 1), (64, 8, 3), (8, 8, 0)])
def test_parts_cover_all_rows_in_order_in_one_size(num_rows, num_devices, least):
    parts = equal_parts(num_rows, num_devices, least)
    assert len({len(part) for part in parts}) == 1
    assert len(parts[0]) % num_devices == 0
    assert len(parts) <= batch_sampling.MOST_CALLS
    assert np.concatenate(parts)[:num_rows].tolist() == list(range(num_rows))


def test_samples_do_not_depend_on_the_calls_they_are_drawn_in():
    traced = []

    def draw(key, y, scale):
        traced.append(1)
        return scale * jax.random.normal(key, (2,)) + y

    labels = np.arange(70) % 3
    one, many = draw_all(draw, 0, labels, (1.0, 2.0)), draw_all(draw, 0, labels, (1.0, 2.0), chunk=4)
    np.testing.assert_array_equal(one, many)
    assert len(traced) == 4  # each time once for the plan, once for the one program


def test_samples_that_are_no_pictures_need_another_file():
    with pytest.raises(UserError, match=r"must end in \.npz"):
        output.require_room(OutputOptions("x.png"), facts_of(PRESETS["imagenet256_latent"][1]), 3, 1)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["--solver", "euler"], 2 * 8),
        ([], 2 * 2 * 8),
        (["--interval", 0.5, 1.0], 2 * 4 + 2 * 2 * 4),
        (["--solver", "adaptive"], None),
        (["--solver", "euler", "--scale", 1], 8),
        (["--solver", "euler", "--scale", 0, "--interval", 0.5, 1.0, "--negative-label", 3], 8),
    ],
)
def test_the_evaluations_of_a_sample_are_told(arguments, count, trained_mixture, tmp_path):
    """Labelled and null at each stage of 8 steps; without guidance, or at w = 0, one of them alone."""
    done = command("sample", trained_mixture, "--num-steps", 8, "--out", tmp_path / "x.npz", *arguments)
    assert done.returncode == 0, done.stderr
    cost = f" ({count} evaluations each)" if count else ""
    scale = arguments[arguments.index("--scale") + 1] if "--scale" in arguments else 2
    assert f"wrote 8 samples at w = {scale}{cost} to" in done.stdout


@pytest.mark.parametrize(("scale", "both"), [(0.0, 4), (1.0, 4), (2.5, 8)])
def test_a_sample_at_zero_or_one_evaluates_one_side_as_is_told(scale, both):
    """Of one network and of two: in the program that draws, whose scale is traced, as in what is told."""
    path, mixture, ts = paths.linear(), mixtures.ring(3), np.linspace(0, 1, 5)
    field, key, y = mixture.vector_field(path), jax.random.key(0), jnp.int32(1)
    for pair_of in (
        lambda placed: guidance.pair(placed(field), 3),
        lambda placed: guidance.autoguidance_pair(*[placed(field)] * 2),
    ):
        rule_of = lambda placed, pair_of=pair_of: lambda w: guidance.extrapolate(pair_of(placed), w)  # noqa: E731
        told = samplers.num_evaluations(rule_of, field, path, (2,), "euler", ts, scale)
        one_sided = lambda placed, rule_of=rule_of: samplers.one_sided(rule_of(placed), scale)  # noqa: E731
        assert told == both == samplers.num_evaluations(one_sided, field, path, (2,), "euler", ts, 2.5)
        found = jax.jit(make_draw(one_sided(lambda field: field), path, (2,), "euler", ts))(key, y, scale)
        drawn = jax.jit(make_draw(rule_of(lambda field: field), path, (2,), "euler", ts))(key, y, scale)
        np.testing.assert_allclose(found, drawn, rtol=1e-5, atol=1e-6)


def test_a_negative_label_is_led_away_from(trained_mixture, tmp_path):
    """The samples of u_neg + w (u_y - u_neg), as the library composes it, and no others."""
    out, scale = tmp_path / "samples.npz", 3.0
    done = command(
        "sample",
        trained_mixture,
        "--scale",
        scale,
        "--num-steps",
        4,
        "--labels",
        3,
        "--negative",
        5,
        "--out",
        out,
    )
    assert done.returncode == 0, done.stderr
    field = restore_run(trained_mixture).field
    noise_key, solver_key = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))
    noise, ts = jax.random.normal(noise_key, (2,)), np.linspace(0, 1, 5)

    def drawn(null_label):
        guided = guidance.given(guidance.extrapolate(guidance.pair(field, null_label), scale), 3)
        return jax.jit(lambda x: solvers.integrate(solvers.heun(guided), solver_key, x, ts))(noise)

    np.testing.assert_allclose(np.load(out)["x"][0], drawn(5), rtol=1e-4, atol=1e-5)
    assert np.abs(drawn(5) - drawn(8)).max() > 0.05
    assert "--negative 5" in str(np.load(out)["command"])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"negative": "9"}, r"negative must be in 0..8 \(8 is null\), got 9"),
        ({"negative": "cat"}, "negative must be in 0..8"),
        (
            {"negative": "1", "worse": "runs"},
            "negative must be left out where a worse network or a classif",
        ),
        ({"negative": "1", "classifier": "runs"}, "negative must be left out where a worse network or a"),
    ],
)
def test_a_negative_label_that_is_none_is_refused(arguments, expected, trained_mixture):
    with pytest.raises(UserError, match=expected):
        rule_of(GuidanceOptions(**arguments), restore_run(trained_mixture), np.array([1]), None)


def test_a_negative_label_takes_the_null_label_s_place_in_what_must_be_trained(trained_mixture):
    run = restore_run(trained_mixture)
    untrained = run._replace(experiment=dataclasses.replace(run.experiment, label_drop_rate=0.0))
    with pytest.raises(UserError, match="needs the null label"):
        rule_of(GuidanceOptions(), untrained, np.array([1]), None)
    rule_of(GuidanceOptions(negative="3"), untrained, np.array([1]), None)


def test_a_negative_label_may_be_called_by_its_name():
    for word, label in (("dog", 1), ("1", 1), ("null", 2)):
        assert labels_called("negative", (word,), ("cat", "dog")) == [label]
