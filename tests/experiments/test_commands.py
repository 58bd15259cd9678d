"""A user's mistakes: one line each, exit code 2, and nothing lost."""

import shutil

import pytest
from PIL import Image

from tests.support.commands import SMALL, assert_one_line, command, finish, start

REFUSALS = {
    "unknown preset": (["digts"], "Unrecognized options: digts"),
    "misspelt override": (["digits", "--optimizer.learnin-rate", "1"], "--optimizer.learning-rate"),
    "word for a number": (["digits", "--num-steps", "many"], "--num-steps"),
    "number out of range": (["digits", "--label-drop-rate", "1.5"], "label_drop_rate"),
    "scale not finite": (["mixture", "--sampling.scales", "nan"], "sampling.scales"),
    "data not prepared": (["digits", "--data-dir", "nowhere"], "experiments.prepare digits --data-dir nowhere"),
    "unknown split": (["digits", "--data.train-split", "validation"], "has no split 'validation'"),
    "too few held out": (["digits", "--data.test-split", "test[:5]"], "data.test_split has 5 examples"),
    "batch larger than the data": (["digits", "--batch-size", "1440"], "batch_size must be in 1..1437"),
    "batch not divisible by the devices": (
        ["mixture", "--batch-size", "33"],
        "batch_size must be divisible by the number of devices (8), got 33",
    ),
}


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
        (["--scale", "inf"], "scale must be finite, in -10000..10000, got inf"),
        (["--labels", "9"], "labels must be in 0..8 (8 is null), got 9"),
        (["--labels", "-1"], "labels must be in 0..8 (8 is null), got -1"),
        (["--num-steps", "0"], "num_steps must be at least 1, got 0"),
        (["--num-samples", "0"], "num_samples must be at least 1, got 0"),
        (["--out", "picture.jpg"], "out must end in .png or .npz"),
        (["--solver", "rk5"], "--solver"),
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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--sampling.scales"], "sampling.scales"),
        (["--sampling.scales", "1e39"], "sampling.scales.0"),
        (["--seed", "-1"], "seed"),
        (["--seed", str(2**32)], "seed"),
        (["--objective", "classifier"], "needs pictures"),
    ],
)
def test_train_refuses_before_it_writes(arguments, expected, tmp_path):
    assert_one_line(command("train", "mixture", "--run-dir", tmp_path / "run", *arguments), expected)
    assert not (tmp_path / "run").exists()


def test_an_mlp_is_refused_as_a_noisy_classifier(data_dir, tmp_path):
    arguments = ["--data-dir", data_dir, "--run-dir", tmp_path / "run", "--objective", "classifier"]
    assert_one_line(command("train", "digits", *arguments), "needs a U-Net or a transformer")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--network.patch", "5"], "patch must divide the image's sides, got patch 5 on 28 x 28"),
        (["--network.num-heads", "3"], "num_heads must divide the width 128, got 3"),
        (["--data.num-classes", "7"], "data.num_classes is 7, but the data set has 10"),
        (["--data.name", "nothing"], "experiments.prepare nothing"),
    ],
)
def test_a_network_that_does_not_fit_the_data_is_refused(options, expected, tmp_path, data_dir):
    done = command("train", "fashion_mnist", "--data-dir", data_dir, "--run-dir", tmp_path / "run", *options)
    assert_one_line(done, expected)
    assert not (tmp_path / "run").exists()


def test_checkpoints_without_their_config_are_refused(trained_mixture, tmp_path):
    shutil.copytree(trained_mixture, tmp_path / "run")
    (tmp_path / "run" / "config.json").unlink()
    done = command("train", "mixture", "--run-dir", tmp_path / "run", *SMALL)
    assert_one_line(done, "holds checkpoints without the config.json")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["cifar10"], "pip install tensorflow"),
        (["nothing"], "knows no data set 'nothing'"),
        (["mine", "--source", "nowhere"], "is not a folder"),
        (["mine", "--source", ".", "--image-size", "0"], "image_size must be at least 1, got 0"),
        (["digits", "--image-size", "8"], "image_size and on_corrupt are for a folder of pictures"),
        (["digits", "--data-dir", "file"], "data_dir file cannot be made"),
    ],
)
def test_prepare_refuses_what_it_cannot_make(arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert_one_line(command("prepare", *arguments), expected)


def test_prepare_names_the_pictures_it_skips(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "source" / name).mkdir(parents=True)
        Image.new("L", (4, 4)).save(tmp_path / "source" / name / "good.png")
    (tmp_path / "source" / "b" / "bad.png").write_bytes(b"no picture")
    arguments = ["mine", "--source", tmp_path / "source", "--data-dir", tmp_path / "data"]
    assert_one_line(command("prepare", *arguments), "bad.png does not read")
    done = command("prepare", *arguments, "--on-corrupt", "skip")
    assert done.returncode == 0, done.stderr
    assert "skipped" in done.stdout
    assert "bad.png" in done.stdout
    assert "mine is prepared in" in done.stdout
    assert "already" in command("prepare", *arguments).stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--only", "rings"], "only must be of ring, classifier_free"),
        (["--num-samples", "0"], "num_samples must be at"),
    ],
)
def test_gallery_refuses_what_it_cannot_draw(arguments, expected):
    assert_one_line(command("gallery", *arguments), expected)


def test_sample_refuses_a_folder_as_its_file_and_a_seed_out_of_range(trained_mixture, tmp_path):
    (tmp_path / "folder.png" / "inside").mkdir(parents=True)
    assert_one_line(command("sample", trained_mixture, "--out", tmp_path / "folder.png"), "out must be a file")
    assert_one_line(command("sample", trained_mixture, "--seed", "-1"), "seed must be in 0..4294967295")
    assert_one_line(command("sample", trained_mixture, "--scale", "1e39"), "scale must be finite, in -10000..10000")
