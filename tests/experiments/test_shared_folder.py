"""A run's folder is the first process's on all others, or they refuse to begin."""

import os
import threading

import jax
import pytest

from experiments.cli.main import UserError
from experiments.run import shared_folder
from experiments.run.shared_folder import require_shared, told
from experiments.runtime import distributed, peers

SHORT = 0.3


@pytest.fixture
def as_process(monkeypatch):
    """This process as one of two, of which the other leaves its texts."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(peers, "name", "process {}".format)
    monkeypatch.setattr(shared_folder, "SECONDS", SHORT)

    def act(index, answer):
        monkeypatch.setattr(distributed, "is_process_0", lambda: index == 0)
        monkeypatch.setattr(distributed, "on_process_0", lambda work: work() if index == 0 else None)
        monkeypatch.setattr(peers, "texts", answer)

    return act


def _marks(folder):
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("complaint", ["", "elsewhere is not the folder of process 0"])
def test_the_first_process_leaves_one_mark_and_takes_it_away(complaint, as_process, tmp_path):
    (tmp_path / ".shared-of-a-start-that-was-killed").touch()
    seen = []

    def answer(key, own):
        seen.append(_marks(tmp_path))
        return [own, complaint]

    as_process(0, answer)
    if complaint:
        with pytest.raises(UserError, match=rf"^run_dir on process 1: {complaint}$"):
            require_shared("run_dir", tmp_path)
    else:
        require_shared("run_dir", tmp_path)
    assert seen[0] == seen[1]
    assert len(seen[0]) == 1
    assert seen[0] != [".shared-of-a-start-that-was-killed"]
    assert _marks(tmp_path) == []


def _answers_of_others(mark, said):
    """What process 1 is told: the mark of the first process, which itself sees it."""

    def answer(key, own):
        if key.startswith("mark"):
            return [mark, own]
        said.append(own)
        return ["", own]

    return answer


def test_a_mark_is_waited_for(as_process, tmp_path, monkeypatch):
    """As on NFS, whose clients see a new folder late."""
    monkeypatch.setattr(shared_folder, "SECONDS", 60.0)
    folder, said = tmp_path / "run", []
    as_process(1, _answers_of_others(".shared-1", said))

    def make():
        folder.mkdir()
        (folder / ".shared-1").touch()

    late = threading.Timer(0.3, make)
    late.start()
    require_shared("run_dir", folder)
    late.join()
    assert said == [""]
    assert _marks(folder) == [".shared-1"]


@pytest.mark.parametrize("is_there", [False, True])
def test_another_folder_of_the_same_name_is_refused_and_not_made(is_there, as_process, tmp_path):
    folder, said = tmp_path / "run", []
    if is_there:
        folder.mkdir()
        (folder / ".shared-of-another").touch()
    as_process(1, _answers_of_others(".shared-1", said))
    with pytest.raises(UserError) as caught:
        require_shared("run_dir", folder)
    advice = "put it on a disk that all hosts share"
    assert str(caught.value) == f"run_dir on process 1: {folder} is not the folder of process 0; {advice}"
    assert said == [str(caught.value).removeprefix("run_dir on process 1: ")]
    assert folder.exists() == is_there


def test_a_folder_that_one_process_cannot_write_is_refused(as_process, tmp_path, monkeypatch):
    (tmp_path / ".shared-1").touch()
    as_process(1, _answers_of_others(".shared-1", []))
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK))
    with pytest.raises(UserError, match=rf"^run_dir on process 1: {tmp_path} cannot be written$"):
        require_shared("run_dir", tmp_path)


def test_the_first_complaint_is_told_of_all_whose_it_is(monkeypatch):
    monkeypatch.setattr(peers, "name", "process {}".format)
    assert told(["", "", ""]) == ""
    assert told(["", "a", "b", "a"]) == "on process 1, process 3: a"
    many = told(["", *["a"] * 999])
    assert many == "on process 1, process 2, process 3, process 4 and 995 more: a"


def test_one_process_leaves_nothing(tmp_path):
    require_shared("run_dir", tmp_path / "not there")
    assert _marks(tmp_path) == []
