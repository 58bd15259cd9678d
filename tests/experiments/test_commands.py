"""A user's mistakes: one line each, exit code 2, and nothing lost."""

import shutil

import pytest

from tests.experiments.running import SMALL, command, finish, start

REFUSALS = {
    "unknown preset": (["digts"], "Unrecognized options: digts"),
    "misspelt override": (["digits", "--optimizer.learnin-rate", "1"], "--optimizer.learning-rate"),
    "word for a number": (["digits", "--num-steps", "many"], "--num-steps"),
    "number out of range": (["digits", "--label-drop-rate", "1.5"], "label_drop_rate"),
    "scale not finite": (["mixture", "--sampling.scales", "nan"], "sampling.scales"),
    "data not prepared": (["digits", "--data-dir", "nowhere"], "experiments.prepare digits --data-dir nowhere"),
    "unknown split": (["digits", "--data.train-split", "validation"], "has no split 'validation'"),
    "too few held out": (["digits", "--data.test-split", "test[:5]"], "data.test_split has 5 images"),
    "batch larger than the data": (["digits", "--batch-size", "1440"], "batch_size must be in 1..1437"),
    "batch not divisible by the devices": (
        ["mixture", "--batch-size", "33"],
        "batch_size must be divisible by the number of devices (8), got 33",
    ),
}


def assert_one_line(done, expected):
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr


@pytest.mark.parametrize("name", REFUSALS)
def test_a_mistake_is_one_line_and_exit_code_2(name, tmp_path, monkeypatch, data_dir):
    arguments, expected = REFUSALS[name]
    monkeypatch.chdir(tmp_path)
    where = ["--data-dir", data_dir] if arguments[0] == "digits" and "--data-dir" not in arguments else []
    assert_one_line(command("train", *arguments, *where), expected)
    assert not list(tmp_path.rglob("config.json"))


def test_a_process_ends_with_exit_code_2_and_one_line(tmp_path):
    done = finish(start("train", "mixture", "--run-dir", tmp_path / "run", "--batch-size", 33, num_devices=2))
    assert_one_line(done, "batch_size must be divisible by the number of devices (2), got 33")


def test_a_run_folder_of_another_preset_is_refused(trained_mixture, data_dir):
    done = command("train", "digits", "--run-dir", trained_mixture, "--data-dir", data_dir)
    assert_one_line(done, "holds a run of preset 'mixture', not 'digits'")


def test_a_run_folder_of_other_settings_is_refused(trained_mixture):
    done = command("train", "mixture", "--run-dir", trained_mixture, *SMALL, "--seed", 5)
    assert_one_line(done, "seed = 0, not 5")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--scale", "inf"], "scale must be finite, got inf"),
        (["--labels", "9"], "labels must be in 0..8 (8 is null), got 9"),
        (["--labels", "-1"], "labels must be in 0..8 (8 is null), got -1"),
        (["--num-steps", "0"], "num_steps must be at least 1, got 0"),
        (["--num-samples", "0"], "num_samples must be at least 1, got 0"),
        (["--out", "picture.jpg"], "out must end in .png or .npz"),
        (["--solver", "rk4"], "--solver"),
    ],
)
def test_sample_refuses_what_it_cannot_draw(trained_mixture, arguments, expected):
    assert_one_line(command("sample", trained_mixture, *arguments), expected)


def test_evaluate_refuses_a_scale_that_is_not_finite(trained_mixture):
    assert_one_line(command("evaluate", trained_mixture, "--scales", "1", "inf"), "sampling.scales.1")


@pytest.mark.parametrize("module", ["sample", "evaluate"])
def test_a_folder_without_a_run_is_refused(module, tmp_path):
    assert_one_line(command(module, tmp_path), f"no run in {tmp_path}")


def test_an_unreadable_checkpoint_is_refused(trained_mixture, tmp_path):
    run_dir = tmp_path / "broken"
    shutil.copytree(trained_mixture, run_dir)
    for file in (run_dir / "checkpoints").rglob("_METADATA"):
        file.write_bytes(file.read_bytes()[:50])
    where = run_dir / "checkpoints" / "40"
    assert_one_line(command("sample", run_dir), f"checkpoint {where} is unreadable")
    assert_one_line(command("train", "mixture", "--run-dir", run_dir, *SMALL), f"checkpoint {where} is unreadable")


def test_an_unreadable_config_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"preset": "digits"}')
    assert_one_line(command("sample", tmp_path), "config.json does not read")


def test_an_output_folder_that_cannot_be_made_is_refused(trained_mixture, tmp_path):
    (tmp_path / "file").write_text("")
    done = command("sample", trained_mixture, "--out", tmp_path / "file" / "picture.png")
    assert_one_line(done, f"out {tmp_path / 'file'} cannot be made")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("train", ["digits", "mixture"]),
        ("sample", ["--scale", "Guidance scale", "(default: 2.0)"]),
        ("evaluate", ["--scales", "--num-per-class"]),
        ("prepare", ["--data-dir", "(default: data)"]),
    ],
)
def test_help_names_options_and_defaults(module, words):
    done = command(module, "--help")
    assert done.returncode == 0
    assert all(word in done.stdout for word in words), done.stdout
