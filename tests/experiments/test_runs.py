"""Every preset, shrunk: trained, resumed, sampled and evaluated, as a user would."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from cfgjax import checkpoints, paths
from experiments.config.networks import MLPNetwork
from experiments.config.samplers import classifier_free, make_draw, times
from experiments.config.schema import Sampling
from experiments.evaluation.mixture import TIMES, field_errors
from experiments.presets.registry import PRESETS
from experiments.run import folder as run_folder
from experiments.run.batch_sampling import draw_all, sample_keys
from experiments.run.fit import fit
from experiments.run.loop import dispatches
from experiments.tasks.mixture import mixture_of
from tests.experiments.test_resume import final_state
from tests.support.commands import SMALL, command


def test_a_run_leaves_its_config_metrics_pictures_and_checkpoint(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert {(row["scale"], row["solver"]) for row in metrics["samples"]} == {
        (scale, solver) for scale in (0.0, 2.0) for solver in ("heun", "euler_maruyama")
    }
    with Image.open(trained / "samples.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    assert checkpoints.latest_step(run_folder.checkpoints_of(trained)) == 40
    assert run_folder.read_config(trained).num_steps == 40


def test_metrics_are_one_json_line_at_every_interval(trained):
    rows = _lines(trained)
    assert [row["step"] for row in rows if "loss" in row] == list(range(5, 41, 5))
    assert [row["step"] for row in rows if "held_out_loss" in row] == [10, 20, 30, 40]
    assert all(np.isfinite(value) for row in rows for value in row.values())


@pytest.mark.parametrize(("size", "sizes"), [(1, {1}), (4, {4}), (10, {10}), (7, {1, 7}), (50, {1})])
def test_dispatches_cover_every_step_and_end_alike_after_a_resume(size, sizes):
    experiment = dataclasses.replace(PRESETS["digits"][1], steps_per_dispatch=size, save_every=20, num_steps=80)
    groups = list(dispatches(0, experiment))
    assert [step for steps in groups for step in steps] == list(range(80))
    assert {len(steps) for steps in groups} == sizes
    for saved in (20, 40, 60):
        assert list(dispatches(saved, experiment)) == [steps for steps in groups if steps.start >= saved]


@pytest.mark.slow
def test_several_steps_in_one_dispatch_write_the_same_lines(trained_mixture, tmp_path):
    done = command("train", "mixture", "--run-dir", tmp_path / "run", *SMALL, "--steps-per-dispatch=3")
    assert done.returncode == 0, done.stderr
    pairs = zip(*(_lines(run_dir) for run_dir in (trained_mixture, tmp_path / "run")), strict=True)
    for one, other in pairs:
        assert one.keys() == other.keys()
        for name in one.keys() - {"examples_per_second"}:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4)


def _lines(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_finished_run_is_not_trained_again(trained_mixture):
    before = final_state(trained_mixture)
    done = command("train", "mixture", "--run-dir", trained_mixture, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "at step 40 of 40" in done.stdout
    jax.tree.map(np.testing.assert_array_equal, before, final_state(trained_mixture))


def test_sample_writes_the_same_sample_in_any_number_of_samples(trained, tmp_path):
    for name, count in (("few", 2), ("many", 5)):
        done = command("sample", trained, "--labels", 3, "--num-samples", count, "--out", tmp_path / f"{name}.npz")
        assert done.returncode == 0, done.stderr
    few, many = np.load(tmp_path / "few.npz"), np.load(tmp_path / "many.npz")
    assert many["y"].tolist() == [3] * 5
    np.testing.assert_allclose(few["x"], many["x"][:2], rtol=1e-4, atol=1e-5)
    assert not np.allclose(many["x"][0], many["x"][1])


def test_sample_draws_a_picture(trained, tmp_path):
    done = command("sample", trained, "--solver", "euler_maruyama", "--out", tmp_path / "a" / "b.png")
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "a" / "b.png") as picture:
        assert np.asarray(picture.convert("L")).std() > 5


def test_evaluate_measures_other_scales_by_another_solver_into_another_folder(trained, tmp_path):
    run_dir = shutil.copytree(trained, tmp_path / "run")
    done = command("evaluate", run_dir, "--scales", 1, 3, "--solver", "ddim", "--num-per-class", 2)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((run_dir / "evaluation" / "metrics.json").read_text())
    assert {(row["scale"], row["solver"]) for row in metrics["samples"]} == {(1.0, "ddim"), (3.0, "ddim")}


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["field", "noise", "score"])
def test_every_objective_learns_the_same_field(objective, tmp_path):
    experiment = dataclasses.replace(
        PRESETS["mixture"][1], run_dir=tmp_path / objective, objective=objective, num_steps=300, batch_size=128,
        network=MLPNetwork(width=32, depth=2), sampling=Sampling((1.0,), 4, 2),
    )  # fmt: skip
    run = fit(experiment)
    errors = field_errors(run.field, mixture_of(experiment.data), run.model.path, seed=0)
    middle = [error for t, error in zip(TIMES, errors["labelled"], strict=True) if 0.4 <= t <= 0.7]
    assert np.mean(middle) < 0.35


def test_the_oracle_field_has_no_error_and_null_for_labelled_has_much():
    mixture, path = mixture_of(PRESETS["mixture"][1].data), paths.linear()
    exact = mixture.vector_field(path)
    assert max(field_errors(exact, mixture, path, seed=0)["labelled"]) < 1e-6
    null = field_errors(lambda x, t, y: exact(x, t, mixture.num_classes), mixture, path, seed=0)
    assert max(null["null"]) < 1e-6
    assert max(null["labelled"]) > 0.9


def test_a_sweep_shares_noise_between_scales():
    mixture, path = mixture_of(PRESETS["mixture"][1].data), paths.linear()
    draw = make_draw(
        classifier_free(mixture.vector_field(path), mixture.num_classes), path, (2,), "heun", times(path, 8)
    )
    keys, labels = sample_keys(0, 3), np.array([0, 1, 2])
    together = draw_all(draw, 0, labels, (0.0, 1.0, 4.0))
    np.testing.assert_allclose(together[2, 1], draw(keys[1], labels[1], 4.0), rtol=1e-4)
    unguided = draw(keys[1], np.asarray(mixture.num_classes), 1.0)
    np.testing.assert_allclose(together[0, 1], unguided, rtol=1e-4)
