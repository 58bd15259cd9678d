"""What is compiled for accelerators: the reading of a program's text by hand, and the command."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from experiments.dryrun import targets, work
from experiments.dryrun.__main__ import size_of
from experiments.dryrun.figures import lacking
from experiments.dryrun.hlo import Program, num_bytes
from experiments.presets.registry import PRESETS
from experiments.runtime import progress
from tests.support.commands import assert_one_line, command

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def by_hand():
    return Program((ROOT / "tests/support/program_by_hand.hlo").read_text())


def test_a_loop_turns_from_its_start_by_its_steps_to_its_limit(by_hand):
    """1, 4, 7 are below 8."""
    (loop,) = [each for each, _ in by_hand.runs(lambda each: each.opcode == "while")]
    assert by_hand.turns(loop) == 3


@pytest.mark.parametrize("length", [2, 7])
def test_a_scan_turns_as_often_as_it_is_long(length):
    def scanned(x):
        return jax.lax.scan(lambda x, y: (jnp.sin(x) * y, None), x, jnp.arange(float(length)))[0]

    program = Program(jax.jit(scanned).lower(jnp.zeros(100)).compile().as_text())
    assert [program.turns(each) for each, _ in program.runs(lambda each: each.opcode == "while")] == [length]


def test_cycles_are_those_of_all_turns_and_of_the_longer_branch(by_hand):
    assert by_hand.cycles(by_hand.entry) == 3 * 100 + 20 + 7 + 5 + 50
    assert work.cycles_by_kind(by_hand) == {
        "products": 300,
        "attention": 27,
        "norms and modulation": 0,
        "copies and transposes": 5,
        "collectives": 0,
        "optimizer and EMA": 50,
        "everything else": 0,
    }


def test_source_lines_are_the_innermost_first(by_hand):
    (product,) = [each for each, _ in by_hand.runs(lambda each: each.name == "dense")]
    assert [(frame.function, frame.line) for frame in by_hand.frames(product)] == [
        ("Dense.__call__", 287),
        ("SelfAttention.__call__", 90),
    ]


def test_collectives_are_counted_with_their_bytes(by_hand):
    """Two gathered arrays of 16 x 8 x 4 and 8 x 8 x 2 bytes; three permuted ones of 8 x 8 x 2, asynchronous; a sum of
    8 x 8 x 4 that is begun and ended at once."""
    assert work.collectives(by_hand) == {
        "all-reduce": (1, 256, 0),
        "all-gather": (1, 512 + 128, 0),
        "collective-permute": (3, 3 * 128, 3),
    }


def test_attention_is_told_apart(by_hand):
    assert work.attention_of(by_hand) == (2, 1, 1)


def test_bytes_of_shapes():
    assert num_bytes("(bf16[2,3]{1,0:T(8,128)(2,1)S(1)}, s4[3], pred[5], f32[])") == 12 + 2 + 5 + 4


def test_float32_products_are_named_with_their_lines():
    """2 x 4 x 5 x 6 FLOPs of one product, 2 x 6 x 6 x 2 x 9 x 3 of a convolution; one in bfloat16 is none."""

    def mixed(a, b, image, kernel):
        half = (a.astype(jnp.bfloat16) @ b.astype(jnp.bfloat16)).sum()
        single = (a @ b).sum()
        return half, single, jax.lax.conv(image, kernel, (1, 1), "SAME")

    shapes = (4, 5), (5, 6), (1, 3, 6, 6), (2, 3, 3, 3)
    found = work.float32_products(jax.make_jaxpr(mixed)(*map(jnp.zeros, shapes)))
    assert [(each["count"], each["flops"]) for each in found] == [(1, 2 * 36 * 2 * 27), (1, 240)]
    assert all(re.search(r"test_dryrun\.py:\d+ \(.*mixed\)", each["source"]) for each in found)


@pytest.mark.parametrize(
    "reason",
    [
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (512.00G) exceeds "
        "available HBM (31.25G).",
        "XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 512.00G of 31.25G hbm. Exceeded",
    ],
)
def test_what_a_compiler_lacks_is_read_from_its_words(reason):
    assert lacking(reason) == pytest.approx((512 - 31.25) * 2**30)
    assert lacking("INTERNAL: something else") is None


@pytest.mark.parametrize("kind", ["tpu:v5e:2x4", "gpu:h100"])
def test_a_missing_compiler_is_told_with_its_extra(kind, monkeypatch):
    monkeypatch.setattr(targets.importlib.util, "find_spec", lambda name: None)
    done = command("dryrun", "mixture", "--on", kind)
    assert_one_line(done, f"pip install 'cfgjax[{kind[:3]}-compile]'")


@pytest.mark.parametrize("preset", ["mixture", pytest.param("fashion_mnist_classifier", marks=pytest.mark.slow)])
def test_dryrun_compiles_the_true_step_without_data(preset):
    """Both ways: the state whole on every device, and an eighth of it with the small leaves whole."""
    done = command("dryrun", preset, "--devices", 8, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    whole, cut = (found[way]["state_bytes_per_device"] for way in ("replicated", "sharded"))
    assert found["num_devices"] == 8
    assert 16 * found["num_params"] <= whole < 16 * found["num_params"] + 200
    assert whole / 8 <= cut < whole / 2
    assert min(found[way]["temporary_bytes_per_device"] for way in ("replicated", "sharded")) > 0
    experiment = PRESETS[preset][1]
    expected = 3 * found["forward_flops_per_example"] * experiment.batch_size
    assert found["model_flops_per_step"] == pytest.approx(expected)


@pytest.mark.slow
def test_dryrun_counts_what_lies_on_a_device():
    """Half the examples on each of two devices need less than all of them on one."""
    arguments = "fashion_mnist_classifier", "--json", "--sharding", "replicated", "--devices"
    found = [json.loads(command("dryrun", *arguments, n).stdout) for n in (1, 2)]
    state, temporary = (
        [one["replicated"][f"{name}_bytes_per_device"] for one in found] for name in ("state", "temporary")
    )
    assert state[0] == state[1]
    assert found[0]["source_bytes_per_device"] == 60_000 * (784 + 4)
    assert temporary[1] < 0.7 * temporary[0]


@pytest.mark.parametrize("way", ["sharded", "both"])
def test_dryrun_prints_a_column_for_each_way(way, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    ways = ["replicated", "sharded"] if way == "both" else [way]
    done = command("dryrun", "mixture", "--sharding", way, "--devices", 2)
    assert f"compiling: {len(ways)} of {len(ways)} programs" in done.stderr
    lines = done.stdout.splitlines()
    columns = {line[:26].strip(): line[26:].split() for line in lines}
    assert columns["GiB on each device"] == ways
    assert all(float(value) > 0 for value in columns["state"][: len(ways)])
    assert len(columns["temporary"]) == len(ways)


def test_a_transformer_of_the_papers_size_has_its_name():
    assert size_of(PRESETS["imagenet256_latent"][1]) == "DiT-XL/2"
    assert size_of(PRESETS["fashion_mnist"][1]) == size_of(PRESETS["digits"][1]) == ""


def test_dryrun_on_one_device_cuts_nothing():
    """The record says how to make it again, and what with."""
    found = json.loads(command("dryrun", "digits", "--devices", 1, "--json").stdout)
    assert found["command"] == "python -m experiments.dryrun digits --devices 1 --json"
    assert found["versions"]["jax"] == jax.__version__
    assert found["sharded"]["state_bytes_per_device"] == found["replicated"]["state_bytes_per_device"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fashion"], "preset must be one of digits, digits_flow_map"),
        (["mixture", "--devices", "0"], "devices must be at least 1, got 0"),
        (["mixture", "--devices", "3"], "batch_size must be divisible by 3, got 512"),
        (["mixture", "--devices", "1000"], "devices must be at most 8"),
        (["mixture", "--on", "v6e"], "on must be one of cpu, tpu:v4:2x2x1"),
        (["mixture", "--on", "tpu:v9:2x4"], "on must be one of cpu, tpu:v4:2x2x1"),
        (["mixture", "--on", "gpu:h100:none"], "on must be one of cpu, tpu:v4:2x2x1"),
        (["mixture", "--on", "tpu:v5e:2x4", "--devices", "8"], "devices must be left out with --on tpu:v5e:2x4"),
        (["mixture", "--size", "S"], "size must be left out for mixture"),
        (["digits", "--out", "bars.txt"], "out must end in one of .png, .svg, .pdf, got bars.txt"),
        (["digits", "--devices", "1", "--out", "bars.png"], "out must be left out for cpu"),
        (["fashion_mnist_classifier", "--program", "sample"], "program must be train for a noisy classifier"),
        (["digits", "--program", "sample", "--devices", "3"], "program sample draws 64, which 3 devices do not"),
    ],
)
def test_dryrun_refuses_what_it_cannot_compile(arguments, expected):
    done = command("dryrun", *arguments)
    assert_one_line(done, expected)


def test_guided_sampling_is_compiled_too():
    """64 images by 32 steps, each of one evaluation by Euler and two by Heun, of both labels."""
    found = json.loads(command("dryrun", "digits", "--program", "sample", "--json", "--devices", 2).stdout)
    for solver, evaluations in (("euler", 2 * 32), ("heun", 2 * 2 * 32)):
        assert found[solver]["model_flops"] == pytest.approx(evaluations * 64 * found["forward_flops_per_example"])
        assert found[solver]["state_bytes_per_device"] == 4 * found["num_params"]
        assert found[solver]["collectives"] == {}


def _libtpu():
    """Where libtpu is installed, or None: in this environment, or in build/libtpu alone."""
    if importlib.util.find_spec("libtpu") is not None:
        return ""
    folder = ROOT / "build/libtpu"
    return str(folder) if folder.is_dir() else None


def _on_tpu(*arguments):
    """The command's record by libtpu, in a process of its own: two of libtpu do not go into one."""
    folder = _libtpu()
    if folder is None:
        pytest.skip("libtpu is not installed: pip install 'cfgjax[tpu-compile]', or it alone into build/libtpu")
    folders = filter(None, [folder, str(ROOT), os.environ.get("PYTHONPATH")])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(folders)}
    line = [sys.executable, "-m", "experiments.dryrun", *arguments, "--json"]
    done = subprocess.run(line, env=environment, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_digits_is_compiled_for_tpus():
    """Eight chips; the replicated step averages one set of gradients, of 4 bytes a parameter."""
    found = _on_tpu("digits", "--on", "tpu:v5e:2x4")
    assert (found["num_devices"], found["device_kind"]) == (8, "TPU v5 lite")
    whole, cut = found["replicated"], found["sharded"]
    assert 16 * found["num_params"] <= whole["state_bytes_per_device"] < 16 * found["num_params"] + 200
    assert cut["argument_bytes_per_device"] < whole["argument_bytes_per_device"] / 2
    gradients = whole["collectives"]["all-reduce"]["bytes"]
    assert gradients == pytest.approx(4 * found["num_params"], rel=0.01)
    for each in (whole, cut):
        assert each["cycles"] == sum(each["cycles_by_kind"].values()) > 0
        assert each["lacking_bytes_per_device"] < 0
        assert 0 < each["share_of_peak"] < 1


@pytest.mark.slow
@pytest.mark.parametrize(("on", "num_devices"), [("tpu:v5e:2x4", 8), ("tpu:v6e:4x4", 16)])
def test_a_transformer_is_compiled_for_a_slice_of_tpus(on, num_devices):
    """DiT-S/2: twelve blocks' softmaxes, forward and again in the backward pass, and no kernel without cycles."""
    found = _on_tpu("imagenet256_latent", "--size", "S", "--on", on, "--sharding", "replicated")
    figures = found["replicated"]
    assert found["num_devices"] == num_devices
    assert (figures["attention"]["flash"], figures["attention"]["flash_backward"]) == (0, 0)
    assert figures["attention"]["plain"] >= 24
    kinds = figures["cycles_by_kind"]
    assert kinds["products"] == max(kinds.values())
    sources = [each["source"] for each in figures["float32_products"]]
    assert any("embeddings.py" in source for source in sources)
    assert not any("SelfAttention" in source for source in sources)


@pytest.mark.slow
def test_a_program_that_lacks_memory_says_how_much():
    """65,536 images of 32 x 32 x 4 numbers in float32 and their noise alone are 1 GiB on each of four chips."""
    arguments = "--size", "Ti", "--on", "tpu:v5e:2x2", "--batch-size", "65536", "--sharding", "replicated"
    assert _on_tpu("imagenet256_latent", *arguments)["replicated"]["lacking_bytes_per_device"] > 2**30
