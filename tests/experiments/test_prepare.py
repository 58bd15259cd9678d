"""What ``prepare`` says: what a set holds, what of a source was left out, and what training will lack."""

import numpy as np
import pytest
from PIL import Image

from tests.support.commands import assert_one_line, command
from tests.support.pictures import write_family, write_idx


def _write_pictures(folder, counts, mode="L"):
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            Image.new(mode, (6, 4), index).save(folder / name / f"{index:02}.png")
    return folder


def _prepare(name, source, tmp_path, *options):
    done = command("prepare", name, "--source", source, "--data-dir", tmp_path / "data", *options)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize("times", [1, 2])
def test_what_a_folder_holds_is_told_at_once_and_when_asked_again(times, tmp_path):
    source = _write_pictures(tmp_path / "source", {"cat": 12, "dog": 2})
    (source / "dog" / "2.heic").write_bytes(b"")
    for _ in range(times):
        done = _prepare("mine", source, tmp_path)
    lines = done.stdout.splitlines()
    assert lines[-2:] == ["  14 pictures of 4 x 6, gray: train 12, test 2", "  2 labels, the smallest dog with 2"]
    assert done.stderr == ""
    if times == 2:
        assert lines[0].endswith(f"already; the source is not read again, unless {tmp_path}/data/mine is removed")
    if times == 1:
        assert lines[0] == f"1 file left out, of kinds that are not read as pictures: {source}/dog/2.heic"


def test_what_idx_files_hold_is_told(tmp_path):
    done = _prepare("mnist", write_family(tmp_path / "source", 30, 20), tmp_path)
    assert "  50 pictures of 28 x 28, gray: train 30, test 20\n  10 labels, the smallest 0 with 5\n" in done.stdout


def test_labels_without_a_picture_are_told(tmp_path):
    for split in ("train", "test"):
        images = np.random.default_rng(0).integers(0, 256, (26, 28, 28))
        write_idx(tmp_path / "source", f"emnist-letters-{split}", images, np.arange(26) + 1)
    assert "emnist's pictures lie on their side" in _prepare("emnist/letters", tmp_path / "source", tmp_path).stderr
    done = _prepare("emnist/letters", tmp_path / "source", tmp_path / "upright", "--transpose")
    assert "lie on their side" not in done.stderr
    assert "37 labels, the smallest 1 with 2" in done.stdout
    assert "warning: 11 of 37 labels have no training example: 0, 27..36; they are not learned" in done.stderr


def test_a_set_without_held_out_pictures_says_so_and_trains_as_it_says(tmp_path):
    source = _write_pictures(tmp_path / "source" / "train", {"a": 40, "b": 40}).parent
    done = _prepare("mine", source, tmp_path)
    words = ["--data.train-split", "train[:90%]", "--data.test-split", "train[90%:]"]
    shown = "--data.train-split 'train[:90%]' --data.test-split 'train[90%:]'"
    assert "warning: there is no split test, which training needs: " in done.stderr
    assert shown in done.stderr
    where = ["--data-dir", tmp_path / "data", "--run-dir", tmp_path / "run", "--data.name", "mine"]
    shape = ["--data.shape", 4, 6, 1, "--data.num-classes", 2]
    assert_one_line(command("train", "digits", *where, *shape), "has no split 'test', only train (80); parts of one")
    short = ["--batch-size", 80]
    assert_one_line(command("train", "digits", *where, *shape, *words, *short), "batch_size must be in 1..72")


@pytest.mark.parametrize("options", [["digits", "--transpose"], ["mine", "--source", ".", "--transpose"]])
def test_only_idx_files_are_transposed(options):
    assert_one_line(command("prepare", *options), "transpose is for idx files, whose folder is given as --source")
