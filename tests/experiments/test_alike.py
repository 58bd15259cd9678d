"""What processes must have in common: who differs, in what, and in how many words."""

import dataclasses
import json
import subprocess
from dataclasses import asdict

import jax
import pytest

from experiments.cli.main import UserError
from experiments.config.schema import Experiment
from experiments.presets.registry import PRESETS
from experiments.run import compared, launches
from experiments.run.folder import flat
from experiments.runtime import host_facts, peers
from experiments.runtime.alike import Facts, difference, require_alike

MEND = "install the same versions"


def _who(index):
    return f"process {index} on host-{'abcdefgh'[index % 8]}"


def _told(*values):
    """The facts of processes, each of one kind."""
    return [[Facts(MEND, each)] for each in values]


def test_processes_that_are_alike_differ_in_nothing():
    same = {"jax": "0.10.2", "optax": "0.2.8"}
    assert difference(_told(same, dict(reversed(same.items())), same), _who) == ""


def test_the_majority_is_told_first_and_the_odd_one_by_name():
    told = _told(*({"optax": version} for version in ("0.2.8", "0.2.8", "0.2.7", "0.2.8")))
    assert difference(told, _who) == (
        "the processes differ: optax is 0.2.8 on process 0 on host-a, process 1 on host-b, process 3 on host-d, "
        "and 0.2.7 on process 2 on host-c; install the same versions"
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("ab", "a on process 0 on host-a, and b on process 1 on host-b"),
        ("ba", "b on process 0 on host-a, and a on process 1 on host-b"),
        ("abb", "b on process 1 on host-b, process 2 on host-c, and a on process 0 on host-a"),
        ("abc", "a on process 0 on host-a, and b on process 1 on host-b, and c on process 2 on host-c"),
        ("aabbc", "a on process 0 on host-a, process 1 on host-b, and b on process 2 on host-c, process 3 on host-d, "
                  "and c on process 4 on host-e"),
        ("abcde", "a on process 0 on host-a, and b on process 1 on host-b, and c on process 2 on host-c, "
                  "and something else on 2 more"),
    ],
)  # fmt: skip
def test_of_values_as_frequent_that_of_the_first_process_comes_first(values, expected):
    told = _told(*({"seed": value} for value in values))
    assert difference(told, _who) == f"the processes differ: seed is {expected}; {MEND}"


def test_what_one_process_lacks_is_absent_there():
    assert "; ".join(difference(_told({"a": "1", "grain": "2"}, {"a": "1"}), _who).split("; ")[:1]) == (
        "the processes differ: grain is 2 on process 0 on host-a, and absent on process 1 on host-b"
    )
    assert "grain is absent on process 0 on host-a, and 2 on process 1" in difference(
        _told({"a": "1"}, {"a": "1", "grain": "2"}), _who
    )


def test_what_is_not_known_differs_from_nothing():
    """A checkout and an image without one: the commit of one of them is known."""
    assert difference(_told({"commit": "1a"}, {"commit": None}, {"commit": "1a"}), _who) == ""
    said = difference(_told({"commit": None}, {"commit": "1a"}, {"commit": "2b"}), _who)
    assert "commit is 1a on process 1 on host-b, and 2b on process 2 on host-c" in said
    assert "host-a" not in said


def test_the_first_fact_is_told_with_what_mends_it_and_of_others_the_names():
    first = [Facts("install", {"jax": "1", "optax": "2"}), Facts("start anew", {"seed": "0", "path": "linear"})]
    other = [Facts("install", {"jax": "1", "optax": "3"}), Facts("start anew", {"seed": "1", "path": "linear"})]
    assert difference([first, other], _who) == (
        "the processes differ: optax is 2 on process 0 on host-a, and 3 on process 1 on host-b; also in seed; install"
    )
    assert difference([[first[1]], [other[1]]], _who).endswith("; start anew")


def test_of_kinds_the_earlier_one_is_told_where_the_first_process_lacks_the_fact():
    first = [Facts("install", {"jax": "1"}), Facts("start anew", {"seed": "0"})]
    other = [Facts("install", {"jax": "1", "optax": "3"}), Facts("start anew", {"seed": "1"})]
    assert difference([first, other], _who) == (
        "the processes differ: optax is absent on process 0 on host-a, and 3 on process 1 on host-b; also in seed; "
        "install"
    )


def test_a_thousand_processes_are_told_in_few_words():
    names = [f"a.long.name.of.a.setting.{index}" for index in range(500)]
    values = [dict.fromkeys(names, "x" * 5000 + str(index % 7)) for index in range(1000)]
    said = difference(_told(*values), lambda index: f"process {index} on {'h' * 63}")
    assert len(said) < 1900
    assert "also in" in said
    assert "and 491 more" in said
    told = _told(*({"optax": "0.2.7" if index == 617 else "0.2.8"} for index in range(1000)))
    assert difference(told, lambda index: f"process {index}") == (
        "the processes differ: optax is 0.2.8 on process 0, process 1, process 2 and 996 more, "
        f"and 0.2.7 on process 617; {MEND}"
    )


def test_of_long_values_the_place_is_shown_in_which_they_differ():
    start = "a" * 300
    said = difference(_told({"freeze": f"{start}one{start}"}, {"freeze": f"{start}two{start}"}), _who)
    assert f"is ...{'a' * 20}one{'a' * 37}... on process 0" in said
    assert f"and ...{'a' * 20}two{'a' * 37}... on process 1" in said
    said = difference(_told({"freeze": start}, {"freeze": f"{start}more"}), _who)
    assert f"is ...{'a' * 20} on process 0 on host-a, and ...{'a' * 20}more on" in said


def _answer_with(monkeypatch, told):
    """Every process's texts, whoever asks."""
    texts = [json.dumps(facts) for facts in told]
    asked = []

    def answer(key, own):
        asked.append(key)
        assert own in texts
        return texts

    monkeypatch.setattr(peers, "texts", answer)
    monkeypatch.setattr(peers, "name", _who)
    return asked


def test_every_process_raises_the_same_message(monkeypatch):
    told = _told({"a": "1", "b": "x"}, {"a": "1"}, {"a": "1", "b": "y"})
    _answer_with(monkeypatch, told)
    messages = set()
    for own in told:
        with pytest.raises(UserError) as caught:
            require_alike("here", *own)
        messages.add(str(caught.value))
    assert messages == {difference(told, _who)}


def test_those_who_are_alike_go_on_and_a_key_serves_once(monkeypatch):
    for told in (_told({"a": None, "b": "1"}, {"b": "1", "a": None}), _told({"commit": None}, {"commit": "1a"})):
        asked = _answer_with(monkeypatch, told)
        require_alike("here", *told[0])
        require_alike("here", *told[0])
        assert len(asked) == len(set(asked)) == 2


def _git(folder, *words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_read_of_branches_worktrees_packed_references_and_no_branch(tmp_path):
    here, beside = tmp_path / "here", tmp_path / "beside"
    here.mkdir()
    assert host_facts.commit_of(here) is None
    _git(here, "init", "-q", "-b", "main")
    assert host_facts.commit_of(here) is None
    found = []
    for message in ("one", "two"):
        _git(here, "commit", "-q", "--allow-empty", "-m", message)
        found.append(_git(here, "rev-parse", "HEAD"))
        assert host_facts.commit_of(here) == found[-1]
    _git(here, "worktree", "add", "-q", beside, "-b", "user/other", found[0])
    assert host_facts.commit_of(beside) == found[0]
    _git(here, "pack-refs", "--all")
    assert not (here / ".git/refs/heads/main").exists()
    assert [host_facts.commit_of(each) for each in (here, beside)] == [found[1], found[0]]
    _git(here, "checkout", "-q", "--detach", found[0])
    assert host_facts.commit_of(here) == found[0]


def test_a_change_of_a_source_shows_in_its_folder_alone(tmp_path):
    package = tmp_path / "package"
    for name in ("top.py", "one/a.py", "one/deep/b.py", "two/c.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(name)
    before = host_facts.digests_of(package)
    assert list(before) == [f"the source of package{each}" for each in ("/one", "", "/two")]
    assert len(set(before.values())) == 3

    def changed():
        after = host_facts.digests_of(package)
        return {name.removeprefix("the source of package") for name in before if after.get(name) != before[name]}

    (package / "one/deep/b.pyc").write_text("compiled")
    assert changed() == set()
    (package / "one/deep/b.py").write_text("b")
    assert changed() == {"/one"}
    (package / "two/c.py").rename(package / "two/d.py")
    (package / "one/deep/b.py").write_text("one/deep/b.py")
    assert changed() == {"/two"}
    (package / "two/d.py").rename(package / "two/c.py")
    assert changed() == set()


def test_the_commands_sources_are_compared():
    told = host_facts.code()
    assert {"the source of cfgjax", "the source of cfgjax/training", "the source of experiments/run"} < told.keys()
    assert len(told) < 60


def test_flags_are_compared_one_by_one_and_folders_for_dumps_are_not():
    flags = "--xla_a=1 --xla_dump_to=/x --xla_b --xla_a=2 --xla_force_host_platform_device_count=4"
    told = host_facts.settings({"XLA_FLAGS": flags, "LIBTPU_INIT_ARGS": "--xla_a=3", "NCCL_ALGO": "Ring", "HOME": "/"})
    of_environment = {name: value for name, value in told.items() if not name.startswith("jax_")}
    assert {name: value for name, value in of_environment.items() if name not in jax.config.values} == {
        "XLA_FLAGS --xla_a": "2", "XLA_FLAGS --xla_b": "set", "LIBTPU_INIT_ARGS --xla_a": "3", "NCCL_ALGO": "Ring",
    }  # fmt: skip


def test_settings_of_jax_that_change_numbers_are_compared_and_those_of_a_host_are_not():
    told = host_facts.settings({})
    changes_numbers = ("enable_x64", "default_matmul_precision", "default_prng_impl", "threefry_partitionable")
    makes_others_wait = ("debug_nans", "disable_jit", "cpu_collectives_implementation", "mock_gpu_topology")
    assert {f"jax_{name}" for name in (*changes_numbers, *makes_others_wait)} < told.keys()
    of_a_host = ("compilation_cache_dir", "log_compiles", "dump_ir_to", "cuda_visible_devices", "num_cpu_devices")
    assert not {f"jax_{name}" for name in of_a_host} & told.keys()
    assert told["jax_debug_infs"] == "False"
    jax.config.update("jax_debug_infs", True)
    try:
        assert host_facts.settings({})["jax_debug_infs"] == "True"
    finally:
        jax.config.update("jax_debug_infs", False)


def test_versions_are_those_that_are_installed(tmp_path, monkeypatch):
    assert host_facts.versions(launches.PACKAGES)["jax"] == jax.__version__
    for name, version in (("optax", "0.0.1"), ("nvidia-cudnn-cu12", "9.1")):
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path)
    told = host_facts.versions(launches.PACKAGES)
    assert (told["optax"], told["nvidia-cudnn-cu12"]) == ("0.0.1", "9.1")


def _texts_left(monkeypatch, ask):
    """The facts that are left when asked."""
    left = []
    monkeypatch.setattr(compared, "require_alike", lambda key, *facts: left.extend(facts))
    ask()
    return {name: value for kind in left for name, value in kind.values.items()}


def test_all_settings_but_the_folders_are_compared(monkeypatch):
    experiment: Experiment = PRESETS["digits"][1]
    told = _texts_left(monkeypatch, lambda: compared.require_same_settings(experiment))
    assert told.keys() == flat(asdict(experiment)).keys() - {"run_dir", "data_dir"}
    moved = dataclasses.replace(experiment, run_dir=experiment.run_dir / "b", data_dir=experiment.data_dir / "b")
    assert told == _texts_left(monkeypatch, lambda: compared.require_same_settings(moved))
    other = dataclasses.replace(experiment, seed=1, optimizer=dataclasses.replace(experiment.optimizer, clip_norm=2.0))
    new = _texts_left(monkeypatch, lambda: compared.require_same_settings(other))
    assert {name for name in told if told[name] != new[name]} == {"seed", "optimizer.clip_norm"}


def test_one_process_compares_nothing(monkeypatch):
    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(compared, "require_alike", refuse)
    compared.require_same_start(None)
