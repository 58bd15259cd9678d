"""Runs with guidance inside: from a teacher and from nothing, sampled by few evaluations, measured, gone on with."""

import dataclasses
import itertools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax import checkpoints, guidance, mixtures, solvers
from cfgjax.types import Interval
from experiments import solver_error
from experiments.cli.main import UserError
from experiments.config.distillation import EXACT, Distillation, TaughtBy
from experiments.config.networks import MLPNetwork
from experiments.config.samplers import make_draw, times
from experiments.config.schema import ADAPTER, Sampling
from experiments.evaluation import by_evaluations, exact_laws
from experiments.evaluation.options import EvaluationOptions
from experiments.presets.registry import PRESETS
from experiments.run import folder as run_folder
from experiments.run import teacher as teachers
from experiments.run.batch_sampling import sample_keys
from experiments.run.continuation import begun
from experiments.run.fit import fit, prepare
from experiments.run.model import model_of
from experiments.run.restore import flow_map_of, guided_field_of, restore_field, restore_run
from experiments.run.train_setup import state_of, step_of, train_setup_of
from experiments.run.trajectories import with_trajectories
from experiments.sample.guided import jumps_of, steps_of
from experiments.sample.options import GuidanceOptions, SolverOptions
from experiments.tasks.distillation import LOSSES
from experiments.tasks.objectives import OBJECTIVES
from experiments.tasks.registry import task_of
from tests.experiments.test_resume import final_state
from tests.support.commands import SMALL, assert_one_line, command

NETWORK = MLPNetwork(width=16, depth=1, embedding_width=8)
POOL = ["--distillation.trajectories=64", "--distillation.teacher-steps=1"]


def _experiment(run_dir, teacher=EXACT, **distillation):
    settings = dataclasses.replace(PRESETS["mixture_flow_map"][1].distillation, trajectories=64, teacher_steps=2)
    named = None if teacher is None else TaughtBy(str(teacher))
    return dataclasses.replace(
        PRESETS["mixture_flow_map"][1], run_dir=run_dir, batch_size=16, num_steps=8, save_every=4, log_every=2,
        network=NETWORK, sampling=Sampling((1.0, 2.0), 4, 3),
        distillation=dataclasses.replace(settings, teacher=named, **distillation),
    )  # fmt: skip


def _with_teacher(experiment):
    experiment = teachers.with_step(experiment)
    return experiment, teachers.with_teacher(experiment, task_of(experiment))


def _state(experiment, task):
    return begun(state_of(experiment, model_of(experiment, task)), experiment, task)


@pytest.fixture(scope="session")
def student(made_once, trained_mixture):
    """The folder of a flow map taught by the small run of the mixture."""
    return made_once("flow_map", lambda folder: fit(_experiment(folder, trained_mixture)))


POINT = jnp.array([0.3, -1.1]), jnp.float32(0.25), jnp.int32(3)


def test_a_student_begins_as_its_teachers_labelled_field(trained_mixture, tmp_path):
    experiment, task = _with_teacher(_experiment(tmp_path, trained_mixture))
    params, (x, t, y) = _state(experiment, task).params, POINT
    labelled = restore_field(trained_mixture).field
    at = jax.jit(lambda r, w: model_of(experiment, task).jumps(params)(w)(x, t, r, y))
    for r, w in ((0.25, 1.0), (0.9, 3.5)):
        np.testing.assert_allclose(at(jnp.float32(r), jnp.float32(w)), labelled(x, t, y), rtol=1e-5, atol=1e-6)


def test_the_teacher_is_no_constant_of_the_step(trained_mixture, tmp_path):
    experiment, task = _with_teacher(_experiment(tmp_path, trained_mixture, loss="progressive"))
    setup, state = train_setup_of(experiment, task, model_of(experiment, task)), _state(experiment, task)
    source = setup.source_of(task.source, task)
    assert jax.tree.all(jax.tree.map(np.array_equal, source[1], task.teacher.params))
    batch = next(task.batches(range(1)))
    traced = jax.make_jaxpr(step_of(experiment, setup))(state, batch, source)
    largest = max(leaf.size for leaf in jax.tree.leaves(task.teacher.params))
    assert max((np.size(each) for each in traced.consts), default=0) < largest
    (_, other) = jax.eval_shape(lambda tree: tree, source)
    assert {leaf.shape for leaf in jax.tree.leaves(other)} <= {each.aval.shape for each in traced.jaxpr.invars}


def test_trajectories_are_solves_of_the_guided_field(tmp_path):
    experiment, task = _with_teacher(_experiment(tmp_path))
    states, velocities, labels, scales = with_trajectories(experiment, task).source
    ts, field = times(restore_path(experiment), 32), task.exact(restore_path(experiment))
    assert len(np.unique(np.asarray(scales))) > 32
    assert np.all((np.asarray(labels) < 8) | (np.asarray(scales) == 1))
    for row in (0, 17):
        guided = guidance.given(guidance.classifier_free(field, scales[row], 8), labels[row])
        _, each = solvers.integrate(
            solvers.heun(guided), jax.random.key(0), states[row, 0], ts, observe=lambda carry, t: carry.x
        )
        np.testing.assert_allclose(states[row], each[::2], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(velocities[row, 5], guided(states[row, 5], 5 / 16), rtol=1e-4, atol=1e-4)


def restore_path(experiment):
    return model_of(experiment, task_of(experiment)).path


class _Growth:
    """A network that is the flow map of dx = w x dt, or that map with an error."""

    def __init__(self, error=0.0):
        self._error = error

    def apply(self, params, x, t, told, *_, **__):
        rate, span = told["guidance"], jnp.asarray(told.get("span", 0))
        mean = jnp.where(span == 0, rate, jnp.expm1(rate * span) / jnp.where(span == 0, 1, span))
        return mean * x + self._error


@pytest.mark.parametrize(("error", "expected"), [(0.0, 0.0), (0.1, 0.01)])
@pytest.mark.parametrize(("objective", "equal_rate"), [("flow_map", 0.0), ("flow_map", 1.0), ("guided_field", 0.0)])
def test_the_exact_map_and_its_field_have_no_loss_on_trajectories(error, expected, objective, equal_rate, tmp_path):
    settings = {"loss": "trajectories", "equal_rate": equal_rate, "whole_rate": 0.0, "num_times": 8}
    experiment = dataclasses.replace(_experiment(tmp_path, **settings), objective=objective)
    task, ts = task_of(experiment), np.linspace(0, 1, 9)
    with jax.enable_x64(True):
        states = jnp.exp(1.5 * ts)[:, np.newaxis] * jnp.array([[0.3, -1.1]])
        example = states, 1.5 * states, jnp.int32(3), jnp.float64(1.5)
        loss = OBJECTIVES[objective].loss(experiment, task_taught(task), _Growth(error), None, True)
        values = jax.vmap(lambda key: loss(None, key, example))(jax.random.split(jax.random.key(0), 200))
    np.testing.assert_allclose(values, expected, atol=1e-12)


def task_taught(task):
    rule = lambda scale: lambda x, t, y: scale * x  # noqa: E731
    return dataclasses.replace(task, teacher=teachers.Teacher("growth", lambda params: rule, None, None))


def test_a_field_with_guidance_inside_is_labelled_outside_an_interval(student):
    run, (x, t, y) = restore_field(student), POINT
    inside, outside = (run.rule(guidance.interval(3.0, *ends))(x, t, y) for ends in ((0.2, 0.5), (0.5, 0.8)))
    np.testing.assert_array_equal(inside, run.rule(3.0)(x, t, y))
    np.testing.assert_array_equal(outside, run.field(x, t, y))
    assert np.max(np.abs(inside - outside)) > 1e-4


def test_a_notebook_has_the_flow_map_and_its_field(student):
    flow_map, field, (x, t, y) = flow_map_of(student), guided_field_of(student), POINT
    np.testing.assert_array_equal(flow_map(x, t, t, y, 2.0), field(x, t, y, 2.0))
    run, key = restore_field(student), jax.random.key(3)
    draw = make_draw(run.rule, run.path, (2,), "jump", times(run.path, 1), jumps=run.jumps)
    noise = jax.random.normal(jax.random.split(key)[0], (2,))
    expected = noise + flow_map(noise, 0.0, 1.0, y, 2.0)
    np.testing.assert_allclose(draw(key, y, jnp.float32(2.0)), expected, rtol=1e-5, atol=1e-5)


def test_no_value_of_the_scale_compiles_anything(student):
    run, traces = restore_field(student), []

    def draw(key, scale):
        traces.append(scale)
        return make_draw(run.rule, run.path, (2,), "jump", times(run.path, 2), jumps=run.jumps)(key, 1, scale)

    program = jax.jit(draw)
    values = [program(jax.random.key(0), jnp.float32(scale)) for scale in (1.0, 2.5, 4.0)]
    assert len(traces) == 1
    assert len({tuple(np.asarray(value)) for value in values}) == 3


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_flow_map_is_sampled_by_as_many_evaluations_as_steps(count, student, tmp_path):
    done = command("sample", student, "--num-steps", count, "--scale", 2, "--out", tmp_path / "drawn.npz")
    assert done.returncode == 0, done.stderr
    assert f"({count} evaluation{'s' if count > 1 else ''} each)" in done.stdout
    flow_map, found = flow_map_of(student), np.load(tmp_path / "drawn.npz")
    key = jax.random.fold_in(jax.random.key(0), 5)
    x, ts = jax.random.normal(jax.random.split(key)[0], (2,)), np.linspace(0, 1, count + 1, dtype=np.float32)
    for t, r in itertools.pairwise(ts):
        x = x + (r - t) * flow_map(x, t, r, found["y"][5], 2.0)
    np.testing.assert_allclose(found["x"][5], x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--scale", 7), "scale must be in 0..5, in which {} was trained, got 7"),
        (("--rule", "rescaled"), "rule must be left out: guidance is inside the network of {}"),
        (("--negative", "2"), "negative must be left out: guidance is inside"),
        (("--worse", "{}"), "worse must be left out: guidance is inside"),
        (("--classifier", "{}"), "classifier must be left out: guidance is inside"),
        (("--interval", 0.2, 0.8, "--num-steps", 4), "interval must be 0 1: the flow map of {} learned no others"),
        (("--grid", "karras"), "num_steps must be at least 2 for the grid karras, got 1"),
        (("--labels", "null"), "scale must be 1 at the null label where guidance is inside, got 2"),
    ],
)
def test_sample_refuses_what_guidance_inside_does_not_know(arguments, complaint, student, tmp_path):
    asked = [str(each).format(student) for each in arguments]
    done = command("sample", student, *asked, "--out", tmp_path / "drawn.npz")
    assert_one_line(done, complaint.format(student))


def test_solvers_are_compared_on_the_guidance_inside(student):
    _, solve = solver_error._solve_of(solver_error.Options(run_dir=student, scales=(2.0,), num_samples=1))
    noise, field = jax.random.normal(sample_keys(0, 1)[0], (2,)), guided_field_of(student)
    expected = noise + field(noise, 0.0, 0, 2.0)
    np.testing.assert_allclose(solve("euler", np.array([0.0, 1.0]), 2.0)[0], expected, rtol=1e-5, atol=1e-5)


def test_what_two_sides_do_is_not_looked_for_where_guidance_is_inside(student, tmp_path):
    done = command("diagnose", student, "--out", tmp_path / "seen.png")
    assert_one_line(done, f"diagnose needs a labelled and a null side: guidance is inside {student}'s network")


def test_a_jump_takes_intervals_that_were_drawn_in_training(student):
    run = restore_field(student)
    settings = dataclasses.replace(run.experiment.distillation, intervals=True)
    run = run._replace(experiment=dataclasses.replace(run.experiment, distillation=settings))
    x, t, y = POINT
    found = jumps_of(GuidanceOptions(interval=(0.2, 0.8)), run)(2.0)(x, t, 0.9, y)
    np.testing.assert_array_equal(found, run.jumps(guidance.interval(2.0, 0.2, 0.8))(x, t, 0.9, y))
    solver, ts = steps_of(SolverOptions(), GuidanceOptions(interval=(0.2, 0.8)), run)
    assert (solver, *ts) == ("jump", 0, 1)
    for ends in ((0.6, 0.9), (0.1, 0.4)):
        with pytest.raises(UserError, match=r"interval must be from 0..0.5 to 0.5..1, as the flow map of"):
            jumps_of(GuidanceOptions(interval=ends), run)


def test_a_jump_needs_a_flow_map_and_one_step_of_a_solver_is_told(trained_mixture, tmp_path):
    out = "--out", tmp_path / "drawn.npz"
    for asked in (("sample", trained_mixture, *out), ("evaluate", trained_mixture)):
        done = command(*asked, "--solver", "jump")
        assert_one_line(done, f"solver jump needs a flow map, and {trained_mixture} holds none")
    done = command("sample", trained_mixture, "--num-steps", 1, *out)
    assert done.returncode == 0
    assert done.stderr.startswith("warning: one step of heun is no sample of the guided ODE; a flow map's is")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"path": "cosine"}, r"has path linear, the run cosine"),
        ({"objective": "field"}, r"teacher is for the objectives guided_field and flow_map, not 'field'"),
        ({"data": PRESETS["mixture"][1].data.__class__(num_classes=5)}, r"has num_classes 8, the run 5"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(change, complaint, trained_mixture, tmp_path):
    experiment = dataclasses.replace(_experiment(tmp_path, None), **change)
    with pytest.raises(UserError, match=complaint):
        _with_teacher(teachers.named(experiment, trained_mixture))


@pytest.mark.parametrize(
    ("teacher", "rate", "complaint"),
    [
        (None, 0.0, r"label_drop_rate must be above 0 without a teacher"),
        (EXACT, 1.0, r"label_drop_rate must be under 1 where guidance is inside"),
    ],
)
def test_guidance_inside_needs_labels_and_of_the_data_alone_the_null(teacher, rate, complaint, tmp_path):
    with pytest.raises(UserError, match=complaint):
        prepare(dataclasses.replace(_experiment(tmp_path, teacher), label_drop_rate=rate))


def test_a_loss_of_distillation_is_refused_where_guidance_is_not_inside(tmp_path):
    experiment = dataclasses.replace(_experiment(tmp_path, None, loss="mean_flow"), objective="field")
    with pytest.raises(UserError, match=r"distillation.loss is for the objectives guided_field and flow_map, not"):
        prepare(experiment)


@pytest.mark.parametrize(
    ("distillation", "complaint"),
    [
        ({"loss": "lagrangian"}, r"distillation.loss 'lagrangian' needs a teacher: --teacher RUN; without: mean_flow"),
        ({"loss": "distilled_guidance"}, r"distillation.loss must be one of trajectories, .* 'flow_map', got"),
        ({"scales": (2.0, 3.0)}, r"distillation.scales must hold 1, the labelled field, between them, got 2 3"),
        ({"scales": (0.0, 1.5)}, r"sampling.scales must lie in distillation.scales, 0..1.5, got 2"),
    ],
)
def test_settings_that_do_not_belong_together_are_refused(distillation, complaint, tmp_path):
    with pytest.raises(UserError, match=complaint):
        prepare(_experiment(tmp_path, None, **distillation))


def test_a_teacher_without_a_run_or_an_exact_field_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no run in nowhere"):
        teachers.with_step(_experiment(tmp_path, "nowhere"))
    experiment = _experiment(tmp_path)
    task = dataclasses.replace(task_of(experiment), exact=None)
    with pytest.raises(UserError, match=r"teacher exact is for a mixture; name the folder of a run"):
        teachers.with_teacher(experiment, task)


def test_the_run_knows_the_step_of_its_teacher(student, trained_mixture):
    settings = json.loads((student / "config.json").read_text())["distillation"]
    assert settings["teacher"] == {"run_dir": str(trained_mixture), "step": 40}
    names = {name for name, _ in _leaves(final_state(student).params)}
    assert any("parts_span" in name for name in names)
    assert len(names) == len(_leaves(final_state(trained_mixture).params)) + 8
    assert checkpoints.latest_step(run_folder.checkpoints_of(student)) == 8


def _leaves(params):
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree.leaves_with_path(params)]


def test_scales_and_intervals_are_drawn_where_they_are_asked_for(tmp_path):
    experiment, task = _with_teacher(_experiment(tmp_path, intervals=True))
    *_, labels, scales = with_trajectories(experiment, task).source
    assert isinstance(scales, Interval)
    start, stop = np.asarray(scales.start), np.asarray(scales.stop)
    assert np.all(start < stop)
    is_whole = (start == 0) & (stop == 1)
    assert 16 <= np.sum(is_whole) <= 50
    assert np.all(is_whole[np.asarray(labels) == 8])


def test_older_settings_say_nothing_of_guidance_inside(trained_mixture, tmp_path):
    settings = json.loads((trained_mixture / "config.json").read_text())
    del settings["distillation"]
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert run_folder.read_config(tmp_path).distillation == Distillation()
    assert ADAPTER.validate_python(settings).distillation == Distillation()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "objective"), [(name, of) for name, row in LOSSES.items() for of in row.of])
def test_every_loss_takes_a_step_with_a_teacher_and_those_that_can_without(name, objective, trained_mixture, tmp_path):
    for teacher in (trained_mixture,) if LOSSES[name].needs_teacher else (trained_mixture, None):
        experiment = dataclasses.replace(_experiment(tmp_path, teacher, loss=name), objective=objective)
        trainer = prepare(experiment)
        task = with_trajectories(trainer.experiment, trainer.task)
        step, batch = jax.jit(step_of(trainer.experiment, trainer.setup)), next(task.batches(range(1)))
        _, metrics = step(_state(trainer.experiment, task), batch, trainer.setup.source_of(task.source, task))
        assert np.isfinite(metrics["loss"])
        assert metrics["grad_norm"] > 0
        assert trainer.task.objective.kind == objective


def test_evaluations_are_counted_where_the_steps_are_known(student):
    run, options = restore_run(student), EvaluationOptions(solvers=("heun", "adaptive"))
    rows = [{"guidance": "inside", "solver": solver, "scale": 2.0} for solver in options.solvers]
    found = by_evaluations.by_evaluations(run, options, rows)
    assert [row["evaluations"] for row in found] == [2 * 4, None]
    *_, heun, adaptive = (line.split() for line in by_evaluations.lines({"by_evaluations": found}))
    assert (heun[2], adaptive[2]) == ("8", "-")


def test_no_divergence_is_told_of_jumps_with_noise(student):
    options = EvaluationOptions(solvers=("renoised_jump", "euler"))
    assert exact_laws.kl_divergences(restore_run(student), mixtures.ring(8), options) == {}


def test_a_finished_run_is_what_it_was(student, trained_mixture, tmp_path):
    shutil.copytree(student, tmp_path / "finished")
    run = fit(_experiment(tmp_path / "finished", trained_mixture))
    jax.tree.map(np.testing.assert_array_equal, run.ema, restore_field(student).ema)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["trajectories", "progressive"])
def test_a_run_that_was_stopped_ends_bitwise_as_one_that_was_not(loss, trained_mixture, tmp_path):
    for name in ("whole", "stopped"):
        fit(_experiment(tmp_path / name, trained_mixture, loss=loss))
    shutil.rmtree(run_folder.checkpoints_of(tmp_path / "stopped") / "8")
    fit(_experiment(tmp_path / "stopped", trained_mixture, loss=loss))
    starts = (tmp_path / "stopped" / "starts.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in starts] == [0, 4]
    jax.tree.map(np.testing.assert_array_equal, *(final_state(tmp_path / name) for name in ("whole", "stopped")))


@pytest.mark.slow
def test_the_command_trains_with_a_named_teacher_and_goes_on_with_it(trained_mixture, tmp_path):
    asked = (*SMALL, *POOL, "--network.max-frequency=100", "--run-dir", tmp_path)
    done = command("train", "mixture_flow_map", *asked, "--teacher", trained_mixture)
    assert done.returncode == 0, done.stderr
    assert f"beginning with the parameters of the teacher {trained_mixture}" in done.stdout
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert {row["guidance"] for row in found["by_evaluations"]} == {"inside", "teacher"}
    done = command("train", "mixture_flow_map", *asked)
    assert_one_line(done, "distillation.teacher.run_dir")
    done = command("train", "mixture", *SMALL, "--teacher", trained_mixture, "--run-dir", tmp_path / "other")
    assert_one_line(done, "teacher is for the objectives guided_field and flow_map, not 'field'")


@pytest.mark.slow
def test_evaluate_measures_by_evaluations_and_report_shows_it(student):
    done = command("evaluate", student, "--num-per-class", 20)
    assert done.returncode == 0, done.stderr
    found = json.loads((student / "evaluation" / "metrics.json").read_text())
    rows = found["by_evaluations"]
    assert {(row["guidance"], row["evaluations"]) for row in rows} == {
        ("inside", 1), ("inside", 2), ("inside", 4), ("teacher", 64)
    }  # fmt: skip
    assert all(row["energy_floor"] > 0 and row["seconds_per_sample"] > 0 for row in rows)
    assert all(row["times_faster"] == 1 for row in rows if row["guidance"] == "teacher")
    assert all(row["coupling_bound"] == 0 for row in rows if row["guidance"] == "teacher")
    jumps = [row for row in rows if row["solver"] == "jump 1"]
    assert jumps
    assert all(0.01 < row["coupling_bound"] < 1.1 * row["residual_bound"] for row in jumps)
    assert "evaluations" in done.stdout
    assert command("report", student).returncode == 0
    assert restore_run(student).task.teacher is not None
