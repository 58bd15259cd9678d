"""A run goes on longer than it was to be, with other ways to compute the same, or from another run's parameters."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from cfgjax import checkpoints
from experiments.cli.main import UserError
from experiments.config.networks import DiTNetwork, MLPNetwork
from experiments.config.schema import ADAPTER, Optimizer, Sampling
from experiments.presets.registry import PRESETS
from experiments.run import folder as run_folder
from experiments.run.continuation import with_source
from experiments.run.fit import fit, prepare
from experiments.run.restore import restore_run
from experiments.run.train_setup import never_falls, schedule_of
from tests.experiments.test_resume import final_state
from tests.support.commands import assert_one_line, command


def _short(run_dir, num_steps=6, **changes):
    settings = {
        "run_dir": run_dir, "num_steps": num_steps, "save_every": 3, "log_every": 1, "batch_size": 16,
        "network": MLPNetwork(8, 2, 1), "optimizer": Optimizer(1e-2, 2), "sampling": Sampling((1.0,), 2, 2),
    }  # fmt: skip
    return dataclasses.replace(PRESETS["mixture"][1], **(settings | changes))


def _rows(run_dir, name):
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [row[name] for row in lines if name in row]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run of six steps."""
    run_dir = tmp_path_factory.mktemp("continuing") / "run"
    fit(_short(run_dir))
    return run_dir


def _copied(finished, tmp_path):
    (tmp_path / "run").mkdir()
    for file in finished.rglob("*"):
        target = tmp_path / "run" / file.relative_to(finished)
        target.mkdir(exist_ok=True) if file.is_dir() else target.write_bytes(file.read_bytes())
    return tmp_path / "run"


@pytest.mark.parametrize("warmup_steps", [0, 5, 48, 49, 50, 500])
def test_a_learning_rate_that_never_falls_is_told(warmup_steps, tmp_path):
    experiment = _short(tmp_path, 50, optimizer=Optimizer(1e-2, warmup_steps))
    rates = [float(schedule_of(experiment)(step)) for step in range(50)]
    assert bool(never_falls(experiment)) == (rates[-1] == max(rates))


@pytest.mark.slow
def test_a_longer_run_is_asked_for_and_goes_on_by_the_learning_rates_of_its_new_length(finished, tmp_path):
    run_dir = _copied(finished, tmp_path)
    before = final_state(run_dir)
    with pytest.raises(UserError, match=r"num_steps = 6, not 12; pass --run-dir for a new run, or --accept num_steps"):
        fit(_short(run_dir, 12))
    with pytest.raises(UserError, match="num_steps must be above 6, the step of the newest checkpoint, got 5"):
        fit(_short(run_dir, 5), ("num_steps",))
    jax.tree.map(np.testing.assert_array_equal, final_state(run_dir), before)
    fit(_short(run_dir, 12), ("num_steps",))
    assert run_folder.read_config(run_dir).former_num_steps == ((6, 6),)
    rates = _rows(run_dir, "learning_rate")
    first, second = (schedule_of(_short(run_dir, num_steps)) for num_steps in (6, 12))
    expected = [float(first(n)) for n in range(6)] + [float(second(n)) for n in range(6, 12)]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    assert rates[6] > 2 * rates[5]
    restore_run(run_dir)
    checkpoints.quarantine(run_folder.checkpoints_of(run_dir), {12: ""}, tmp_path / "aside")
    fit(_short(run_dir, 12))
    assert int(final_state(run_dir).step) == 12


@pytest.mark.slow
def test_a_run_of_two_lengths_is_the_same_wherever_it_stopped(finished, tmp_path):
    """One goes back to the checkpoint before the change of length: the learning rates there are the former ones."""
    ends = []
    for name, lost in (("whole", ()), ("back", (9, 12))):
        (tmp_path / name).mkdir()
        run_dir = _copied(finished, tmp_path / name)
        fit(_short(run_dir, 12), ("num_steps",))
        checkpoints.quarantine(run_folder.checkpoints_of(run_dir), dict.fromkeys(lost, ""), tmp_path / name / "aside")
        fit(_short(run_dir, 12))
        ends.append(final_state(run_dir))
    jax.tree.map(np.testing.assert_array_equal, *ends)


@pytest.mark.slow
def test_a_run_may_be_resumed_with_another_way_to_compute_the_same(finished, tmp_path):
    run_dir = tmp_path / "run"
    fit(_short(run_dir, batch_size=16, num_microbatches=2, steps_per_dispatch=3))
    for one, other in zip(jax.tree.leaves(final_state(run_dir)), jax.tree.leaves(final_state(finished)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    checkpoints.quarantine(run_folder.checkpoints_of(run_dir), {6: ""}, tmp_path / "aside")
    fit(_short(run_dir))
    for one, other in zip(jax.tree.leaves(final_state(run_dir)), jax.tree.leaves(final_state(finished)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["ema", "params"])
def test_a_run_begins_with_the_parameters_of_another(which, finished, tmp_path):
    """A new optimizer at a learning rate of next to nothing: after the first step they are still those."""
    source = final_state(finished)
    asked = _short(tmp_path / "new", 1, seed=5, save_every=1, optimizer=Optimizer(1e-9, 0, average_widths=(0.1,)))
    fit(with_source(asked, finished, which))
    end = final_state(tmp_path / "new")
    for tree in (end.params, end.ema, *end.averages):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), tree, getattr(source, which))
    assert int(end.step) == 1
    told = run_folder.read_config(tmp_path / "new").started_from
    assert (told.run_dir, told.which, told.step) == (str(finished), which, 6)
    fit(asked)
    with pytest.raises(UserError, match=r"started_from\.which = .*pass --run-dir"):
        fit(with_source(asked, finished, {"ema": "params", "params": "ema"}[which]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": MLPNetwork(16, 2, 1)}, "network.width is 8, this run's 16"),
        ({"path": "cosine"}, "path is linear, this run's cosine"),
        ({"objective": "noise"}, "objective is field, this run's noise"),
    ],
)
def test_parameters_of_another_network_or_function_are_refused(changes, message, finished, tmp_path):
    with pytest.raises(UserError, match=f"from .*: its {message}"):
        prepare(with_source(_short(tmp_path / "new", **changes), finished, "ema"))
    assert not (tmp_path / "new").exists()


def test_the_learning_rate_is_that_of_the_former_length_up_to_its_end(tmp_path):
    short, long = (schedule_of(_short(tmp_path, num_steps)) for num_steps in (6, 12))
    both = schedule_of(_short(tmp_path, 12, former_num_steps=((4, 6),)))
    for count in range(13):
        assert float(both(count)) == float((short if count < 4 else long)(count))


def test_settings_that_change_nothing_or_only_rounding_may_change_and_no_others(tmp_path):
    network = DiTNetwork()
    preset = dataclasses.replace(PRESETS["fashion_mnist"][1], run_dir=tmp_path, network=network)
    run_folder.open_run(preset)
    for changes in (
        {"num_microbatches": 2}, {"steps_per_dispatch": 5}, {"placement": "sharded"},
        {"network": dataclasses.replace(network, rematerialise=True)},
        {"data": dataclasses.replace(preset.data, in_memory=False)},
    ):  # fmt: skip
        run_folder.open_run(dataclasses.replace(preset, **changes))
    for changes in (
        {"batch_size": 128}, {"seed": 1}, {"network": dataclasses.replace(network, dtype="bfloat16")},
        {"data": dataclasses.replace(preset.data, flip=True)}, {"num_steps": 7000},
    ):  # fmt: skip
        with pytest.raises(UserError, match="pass --run-dir"):
            run_folder.open_run(dataclasses.replace(preset, **changes))


def test_the_option_is_called_from_and_names_what_is_no_run(tmp_path):
    done = command("train", "mixture", "--from", tmp_path / "none", "--run-dir", tmp_path / "new")
    assert_one_line(done, f"no run in {tmp_path / 'none'}")
    assert "--from RUN_OR_FILE" in command("train", "mixture", "--help").stdout


def test_a_config_of_before_there_was_a_past_opens(tmp_path):
    experiment = _short(tmp_path)
    run_folder.open_run(experiment)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["started_from"], config["former_num_steps"], config["freeze"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert run_folder.read_config(tmp_path) == experiment
    assert ADAPTER.validate_json(ADAPTER.dump_json(experiment), strict=True) == experiment
