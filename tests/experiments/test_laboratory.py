"""The commands of the laboratory: guided_distributions, diagnose, solver_error, gallery."""

import contextlib
import csv
import dataclasses
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from cfgjax import guidance, solvers
from experiments import diagnose
from experiments.cli.main import UserError
from experiments.gallery.rules import GALLERY_ROWS
from experiments.run.restore import restore_run
from experiments.runtime import progress
from experiments.runtime.batching import Plan
from experiments.sample.guided import _worse_field
from tests.support.commands import assert_one_line, command

TINY = ["--num-samples", "64"]


def _numbers(line):
    return [float(word.strip("()%")) for word in line.split() if word.strip("()%+-.").replace(".", "").isdigit()]


@pytest.mark.slow
def test_laws_prints_the_tilted_law_beside_what_is_sampled():
    """w = 2, sigma = 2: the weighted moments near (4/3, 2/3); on the ring plain guidance is floors away."""
    done = command(
        "guided_distributions",
        "--scales",
        "2",
        "--num-particles",
        "2000",
        "--num-populations",
        "4",
        "--num-samples",
        "500",
    )
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.split()[:2] == ["2", "2"])
    assert _numbers(row)[2:4] == [1.3333, 0.6667]
    np.testing.assert_allclose(_numbers(row)[4:6], [1.3333, 0.6667], atol=0.08)
    floor, _, ode, sde, _ = _numbers(done.stdout.splitlines()[-1])[1:]
    assert min(ode, sde) > 5 * floor


@pytest.mark.slow
def test_diagnose_writes_the_numbers_of_each_label_and_time(trained_mixture, tmp_path):
    out = tmp_path / "looks" / "diagnostics.png"
    done = command(
        "diagnose", trained_mixture, "--interval", 0.25, 0.75, "--num-steps", 8, "--num-per-class", 2, "--out", out
    )
    assert done.returncode == 0, done.stderr
    assert "24 evaluations a sample" in done.stdout
    with out.with_suffix(".csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {(row["label"], row["t"]) for row in rows} == {(str(y), f"{t / 8:g}") for y in range(8) for t in range(9)}
    assert all(float(row["distance"]) > 0 for row in rows)
    assert len({row["divergence"] for row in rows}) > 8
    with Image.open(out) as picture:
        assert picture.width > 800


@pytest.mark.slow
def test_diagnose_in_parts_shows_how_far_it_is_and_changes_no_number(trained_mixture, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    found = {}
    for chunk, num_parts in ((3, 6), (16, 1)):
        monkeypatch.setattr(diagnose, "plan_batching", lambda *_, chunk=chunk: Plan(chunk, {}))
        out = tmp_path / f"{chunk}.png"
        done = command("diagnose", trained_mixture, "--num-steps", 4, "--num-per-class", 2, "--out", out)
        assert f"looking: {num_parts} of {num_parts} parts of the samples" in done.stderr
        found[chunk] = np.loadtxt(out.with_suffix(".csv"), delimiter=",", skiprows=1)
    np.testing.assert_allclose(found[3], found[16], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_accuracy_falls_with_evaluations():
    done = command(
        "solver_error", "--scales", "2", "--grids", "uniform", "--evaluations", "8", "32", "--num-samples", "16"
    )
    assert done.returncode == 0, done.stderr
    few, many = (_numbers(line)[2:] for line in done.stdout.splitlines()[1:])
    assert all(late < early for early, late in zip(few, many, strict=True))


@pytest.mark.slow
def test_the_gallery_draws_every_rule(tmp_path):
    done = command("gallery", "--out", tmp_path, *TINY)
    assert done.returncode == 0, done.stderr
    names = {file.stem for file in tmp_path.glob("*.png")}
    assert names == {"ring", "feynman_kac", *GALLERY_ROWS}


@pytest.mark.slow
def test_samples_by_other_rules_grids_and_solvers_differ(trained_mixture, tmp_path):
    drawn = {}
    for name, extra in {
        "plain": [],
        "rescaled": ["--rule", "rescaled"],
        "interval": ["--interval", 0.5, 1.0],
        "dpm": ["--solver", "dpm_solver", "--grid", "sigmoid"],
        "adaptive": ["--solver", "adaptive"],
    }.items():
        out = tmp_path / f"{name}.npz"
        done = command("sample", trained_mixture, "--scale", 3, "--num-steps", 8, "--out", out, *extra)
        assert done.returncode == 0, done.stderr
        drawn[name] = np.load(out)["x"]
    assert all(np.all(np.isfinite(samples)) for samples in drawn.values())
    assert len({tuple(samples.round(3).ravel()) for samples in drawn.values()}) == 5


@pytest.mark.slow
def test_a_worse_run_is_led_away_from(trained_mixture, tmp_path):
    """Autoguidance by an earlier checkpoint: the samples of u_weak + w (u - u_weak), both at the label."""
    worse_dir = tmp_path / "worse"
    shutil.copytree(trained_mixture, worse_dir)
    shutil.rmtree(max((worse_dir / "checkpoints").glob("[0-9]*"), key=lambda folder: int(folder.name)))
    out, scale = tmp_path / "samples.npz", 40.0
    options = ["--scale", scale, "--num-steps", 8, "--labels", 3, "--out", out]
    assert command("sample", trained_mixture, *options, "--worse", worse_dir).returncode == 0
    good, worse = restore_run(trained_mixture), restore_run(worse_dir)
    guided = guidance.given(guidance.autoguidance(good.field, worse.field, scale), 3)
    noise_key, solver_key = jax.random.split(jax.random.fold_in(jax.random.key(0), 0))
    noise, ts = jax.random.normal(noise_key, (2,)), np.linspace(0, 1, 9)
    expected = jax.jit(lambda x: solvers.integrate(solvers.heun(guided), solver_key, x, ts))(noise)
    plain = jax.jit(lambda x: solvers.integrate(solvers.heun(guidance.given(good.field, 3)), solver_key, x, ts))(noise)
    np.testing.assert_allclose(np.load(out)["x"][0], expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected - plain).max() > 0.05


@pytest.mark.parametrize(("path", "fits"), [("linear", True), ("ddpm", True), ("cosine", False)])
def test_a_worse_run_may_be_trained_on_another_path_that_is_sampled_on_the_same(path, fits, trained_mixture):
    """Fields trained on the discrete path are sampled on the linear one."""
    run = restore_run(trained_mixture)
    on_path = run._replace(experiment=dataclasses.replace(run.experiment, path=path))
    with contextlib.nullcontext() if fits else pytest.raises(UserError, match="same kind of data and path"):
        _worse_field(on_path, trained_mixture, None)


@pytest.mark.parametrize(
    ("module", "arguments", "expected"),
    [
        ("guided_distributions", ["--num-particles", "1"], "num_particles must be at least 2, got 1"),
        ("guided_distributions", ["--label", "8"], "label must be in 0..7, got 8"),
        ("guided_distributions", ["--scales", "inf"], "scales must be finite"),
        ("learn_schedule", ["--num-knots", "1"], "num_knots must be at least 2"),
        ("learn_schedule", ["--out", "x.jpg"], "out must end in .png"),
        ("learn_schedule", ["--learning-rate", "0"], "learning_rate must be positive"),
        ("solver_error", ["--evaluations", "2"], "evaluations must be at least 4, got 2"),
        ("solver_error", ["nowhere"], "nowhere"),
        ("diagnose", ["runs/none", "--interval", "0.8", "0.2"], "interval must be 0 <= start < stop <= 1"),
        ("diagnose", ["runs/none", "--bound", "0"], "bound must be positive"),
        ("diagnose", ["runs/none"], "runs/none"),
    ],
)
def test_what_cannot_be_done_is_one_line(module, arguments, expected):
    assert_one_line(command(module, *arguments), expected)


def test_sample_refuses_rules_that_do_not_fit(trained_mixture):
    assert_one_line(
        command("sample", trained_mixture, "--interval", "0.8", "0.2"), "interval must be 0 <= start < stop"
    )
    for module in ("sample", "diagnose"):
        few = command(module, trained_mixture, "--interval", "0.2", "0.8", "--num-steps", "1")
        assert_one_line(few, "num_steps must be larger for the interval 0.2 0.8, got 1")
    refused = command("sample", trained_mixture, "--grid", "karras", "--num-steps", "1")
    assert_one_line(refused, "num_steps must be at least 2 for the grid karras")
