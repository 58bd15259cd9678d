"""Rows of the label embedding that training never reached: refused by name, or left out with a line."""

import dataclasses

import pytest

from cfgjax import checkpoints
from experiments.cli.main import UserError
from experiments.config.networks import MLPNetwork
from experiments.config.schema import ADAPTER, Sampling
from experiments.diagnose import Options as DiagnoseOptions
from experiments.diagnose import diagnose
from experiments.evaluate import Options as EvaluateOptions
from experiments.evaluate import SampleOptions, evaluate
from experiments.guided_distributions import Options as LawsOptions
from experiments.guided_distributions import print_distributions
from experiments.presets.registry import PRESETS
from experiments.run import folder as run_folder
from experiments.run.fit import prepare
from experiments.run.model import model_of
from experiments.run.require_trained import require_rows, require_scales, with_known_scales
from experiments.run.restore import Run
from experiments.run.train_setup import state_of
from experiments.run.trained_labels import known_scales
from experiments.solver_error import Options as AccuracyOptions
from experiments.solver_error import compare
from experiments.tasks.registry import task_of
from tests.support.commands import assert_one_line, command

NULL = 8


def _experiment(run_dir, rate):
    return dataclasses.replace(
        PRESETS["mixture"][1], run_dir=run_dir, label_drop_rate=rate, num_steps=2, batch_size=16,
        network=MLPNetwork(8, 2, 1), sampling=Sampling((0.0, 1.0, 2.0), 2, 2),
    )  # fmt: skip


def _saved(experiment, state):
    """The folder of a run as one of two steps leaves it."""
    run_folder.open_run(experiment)
    with checkpoints.Writer(run_folder.checkpoints_of(experiment.run_dir)) as writer:
        writer.save(2, state, ADAPTER.dump_python(experiment, mode="json"))


@pytest.fixture(scope="module")
def runs_of(tmp_path_factory):
    """Runs of the ring that dropped no label, every label, and some, by their rates."""
    experiments = {rate: _experiment(tmp_path_factory.mktemp(f"rate{rate:g}"), rate) for rate in (0.0, 1.0, 0.4)}
    task = task_of(experiments[0.0])
    models = {rate: model_of(experiment, task) for rate, experiment in experiments.items()}
    state = state_of(experiments[0.0], models[0.0])
    for experiment in experiments.values():
        _saved(experiment, state)
    return {rate: Run(experiments[rate], task, models[rate], state.ema, 2) for rate in experiments}


def _without(run, *absent):
    return run._replace(task=dataclasses.replace(run.task, absent_labels=absent))


@pytest.mark.parametrize(
    ("rate", "arguments", "complaint"),
    [
        (0.0, ("--scale", 2), "w = 2 needs the null label, which {} never trained (label_drop_rate 0): only w = 1"),
        (0.0, ("--scale", 0), "w = 0 needs the null label"),
        (0.0, ("--scale", 1, "--labels", "null"), "needs the null label"),
        (0.0, ("--scale", 1), None),
        (1.0, ("--scale", 2), "w = 2 needs labels, of which {} trained none (label_drop_rate 1): only w = 0"),
        (1.0, ("--scale", 1), "w = 1 needs labels"),
        (1.0, ("--scale", 0, "--interval", 0.2, 0.8, "--num-steps", 8), "w = 0 needs labels"),
        (1.0, ("--scale", 0, "--rule", "rescaled"), "w = 0 needs labels"),
        (1.0, ("--scale", 0), None),
    ],
)
def test_sample_refuses_what_was_never_trained(rate, arguments, complaint, runs_of, tmp_path):
    run_dir, out = runs_of[rate].experiment.run_dir, tmp_path / "drawn.npz"
    done = command("sample", run_dir, "--num-steps", 2, *arguments, "--out", out)
    if complaint is None:
        assert done.returncode == 0, done.stderr
        return
    assert_one_line(done, complaint.format(run_dir))
    assert not out.exists()


@pytest.mark.parametrize(("worse", "is_right"), [(0.0, True), (1.0, False)])
def test_a_worse_network_needs_its_labels_and_no_null_label(worse, is_right, runs_of, tmp_path):
    folder = runs_of[worse].experiment.run_dir
    asked = ("--worse", folder, "--scale", 2, "--num-steps", 2, "--out", tmp_path / "drawn.npz")
    done = command("sample", runs_of[0.0].experiment.run_dir, *asked)
    if is_right:
        assert done.returncode == 0, done.stderr
    else:
        assert_one_line(done, f"worse needs labels, of which {folder} trained none")


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_what_looks_at_both_fields_refuses_a_run_that_trained_one(rate, runs_of, tmp_path):
    run_dir = runs_of[rate].experiment.run_dir
    for ask in (
        lambda: diagnose(DiagnoseOptions(run_dir, out=tmp_path / "diagnostics.png")),
        lambda: compare(AccuracyOptions(run_dir)),
        lambda: print_distributions(LawsOptions(run_dir=run_dir)),
        lambda: evaluate(EvaluateOptions(run_dir, samples=SampleOptions(scales=(2.0,)))),
        lambda: require_rows(runs_of[rate], (0, NULL), "likelihood"),
    ):
        with pytest.raises(UserError, match=r"label_drop_rate [01]\)"):
            ask()


def test_a_report_leaves_out_the_scales_of_what_was_never_trained_and_says_so(runs_of, capsys):
    expected = {0.0: (1.0,), 1.0: (0.0,), 0.4: (0.0, 1.0, 2.0)}
    for rate, run in runs_of.items():
        assert with_known_scales(run).experiment.sampling.scales == expected[rate]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[0] == (
        "warning: label_drop_rate 0 trains no null label: only w = 1 is learned; the report draws w = 1 alone"
    )
    only = dataclasses.replace(runs_of[0.0].experiment, sampling=Sampling((2.0, 3.0)))
    assert known_scales(only, (2.0, 3.0)) == (1.0,)


def test_a_label_without_training_examples_is_refused_where_it_is_asked_for(runs_of):
    run = _without(runs_of[0.4], 3, 5)
    require_scales(run, (0.0,), labels=(3,))
    require_scales(run, (2.0,), labels=(1, 2, NULL))
    with pytest.raises(UserError, match=r"label 5, which .* never trained: it has no training example"):
        require_scales(run, (2.0,), labels=(1, 5))


def test_a_rate_by_which_no_label_was_ever_dropped_is_none(runs_of):
    """Thirty-two examples, each dropped with probability 1e-3: none, most likely."""
    run = runs_of[0.4]
    run = run._replace(experiment=dataclasses.replace(run.experiment, label_drop_rate=1e-3))
    with pytest.raises(UserError, match=r"null label, which .* \(label_drop_rate 0.001\)"):
        require_scales(run, (2.0,), labels=(0,))


def test_consistency_trains_the_null_row_where_nothing_is_dropped(runs_of):
    experiment = dataclasses.replace(runs_of[0.0].experiment, null_consistency=0.5)
    assert known_scales(experiment, (0.0, 2.0)) == (0.0, 2.0)


def test_a_preset_trains_all_rows():
    for _, experiment in PRESETS.values():
        assert known_scales(experiment, (0.0, 1.0, 2.0)) == (0.0, 1.0, 2.0)


def test_training_says_before_it_starts_what_will_not_be_learned(runs_of, capsys):
    prepare(dataclasses.replace(runs_of[0.0].experiment))
    assert "warning: label_drop_rate 0 trains no null label" in capsys.readouterr().err
    prepare(runs_of[0.4].experiment)
    assert not capsys.readouterr().err
