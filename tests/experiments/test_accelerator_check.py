"""The check of an accelerator: rows, minutes and page on made-up checks, and its small form from end to end."""

import gc
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cfgjax.models.attention import plain_attention
from experiments.accelerator_check import __main__ as accelerator_check
from experiments.accelerator_check import (
    against_cpu,
    attention,
    beside_torch,
    checks,
    device,
    inputs,
    page,
    repeats,
    rows,
    sizes,
    throughput,
)
from experiments.accelerator_check.checks import Budget, Check
from experiments.accelerator_check.rows import Row
from experiments.benchmark.timed_functions import Skipped, TimedFunction
from experiments.benchmark.workloads import WORKLOADS
from experiments.cli.main import UserError
from tests.support.commands import assert_one_line, command


@pytest.fixture(scope="module", autouse=True)
def _without_what_other_modules_left():
    """After every check garbage is sought: not among what the modules before left."""
    gc.collect()
    gc.freeze()


class Clock:
    """Seconds that pass only when they are told to."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now

    def check(self, name, seconds, latest=1.0):
        """A check that takes so long."""

        def run():
            self.now += seconds
            return {"seconds": seconds}

        return Check("Made up", name, run, latest)


def _raise(error):
    raise error


def test_no_check_is_begun_once_the_minutes_are_up():
    """One that is begun is finished; one that must begin within a share of the minutes leaves the rest to others."""
    clock = Clock()
    made = [clock.check("a", 70), clock.check("early", 1, 0.5), clock.check("b", 60), clock.check("c", 1)]
    found = list(checks.run(made, Budget(2, clock)))
    assert [row.name for row in found] == ["a", "early", "b", "c"]
    assert [row.skipped for row in found] == [None, "50 % of the 2 minutes are up", None, "the 2 minutes are up"]
    assert [row.seconds for row in found] == [70, 0, 60, 0]
    assert found[2].values == {"seconds": 60}


def test_a_check_that_fails_is_a_row_and_the_rest_goes_on():
    made = [
        Check("Made up", "wrong", lambda: _raise(ValueError("two\nlines\x1b and " + 1000 * "more "))),
        Check("Made up", "absent", lambda: Skipped("torch is not installed")),
        Clock().check("right", 1),
    ]
    wrong, absent, right = checks.run(made, Budget(1, Clock()))
    assert wrong.failed.startswith("ValueError: two lines\\x1b and more more")
    assert len(wrong.failed) == checks.LONGEST
    assert rows.outcome(wrong).startswith("failed: ValueError")
    assert (absent.skipped, absent.failed) == ("torch is not installed", None)
    assert right.failed is None
    assert rows.summary([wrong, absent, right]) == "3 rows, 1 failed, 1 skipped"


def test_a_row_counts_what_its_check_compiles():
    made = [Check("", "", lambda: {"x": float(jax.jit(lambda x: 5 * x + 3)(np.float32(1)))}), Check("", "", dict)]
    first, second = checks.run(made, Budget(1))
    assert first.values == {"x": 8}
    assert (first.programs, second.programs) == (1, 0)
    assert first.compile_seconds > 0


ROWS = [
    Row(page.MACHINE, "the machine", {"device": "Abacus 9", "driver": None, "devices": 2}, seconds=0.1),
    Row("Speed", "a | b", {"images_per_s": 1234.5, "is_same": True, "error": 1.5e-7}, None, None, 3.21, 2, 1, 1.5),
    Row("Speed", "c", failed="ValueError: wrong"),
    Row("Memory", "d", skipped="the 7 minutes are up"),
]


def test_rows_are_read_as_they_were_written(tmp_path):
    file = tmp_path / rows.NAME
    for row in ROWS:
        rows.append(file, row)
        assert rows.read(file)[-1] == row
    assert rows.read(file) == ROWS
    rows.append(file, Row("Speed", "e", {"error": float("nan")}))
    assert json.loads(file.read_text().splitlines()[-1])["values"] == {"error": "nan"}


def test_a_last_row_that_was_cut_off_is_left_out_and_another_file_is_refused(tmp_path):
    file = tmp_path / rows.NAME
    for row in ROWS:
        rows.append(file, row)
    file.write_bytes(file.read_bytes()[:-5])
    assert rows.read(file) == ROWS[:-1]
    file.write_text('{"a": 1}\n')
    with pytest.raises(UserError, match="does not hold the rows of a check"):
        rows.read(file)
    with pytest.raises(UserError, match="cannot be read"):
        rows.read(tmp_path / "absent")


def test_the_page_is_made_from_the_rows_alone(tmp_path):
    for row in ROWS:
        rows.append(tmp_path / rows.NAME, row)
    text = page.write(tmp_path).read_text()
    assert text == page.page_of(ROWS)
    assert text.startswith("# Accelerator check: Abacus 9\n\n- device: Abacus 9\n- devices: 2\n\n")
    assert "driver" not in text
    assert " \n" not in text
    assert "4 rows, 1 failed, 1 skipped" in text
    assert "| a \\| b | images/s 1,234, is same yes, error 1.5e-07 | 3.2 | 2 in 1.5 s, 1 kept |" in text
    assert "| c | failed: ValueError: wrong | 0.0 |  |" in text
    assert "| d | skipped: the 7 minutes are up |  |  |" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Speed", "## Memory"]


def test_a_page_without_its_machine_says_so():
    assert "The machine: failed: RuntimeError: gone." in page.page_of(
        [Row(page.MACHINE, "", failed="RuntimeError: gone")]
    )
    assert page.page_of(ROWS[1:]).startswith("# Accelerator check: unknown device")


def test_lines_for_the_terminal():
    assert rows.line(ROWS[1]) == "a | b: images/s 1,234, is same yes, error 1.5e-07 (3.2 s, compiling 1.5 s)"
    assert rows.line(ROWS[3]) == "d: skipped: the 7 minutes are up"


def test_a_run_that_is_interrupted_keeps_its_rows_and_page(tmp_path, monkeypatch):
    stopped = Check("Made up", "c", lambda: _raise(KeyboardInterrupt()))
    made = [Clock().check("a", 1), Clock().check("b", 1), stopped]
    monkeypatch.setattr(accelerator_check, "checks_of", lambda *_: made)
    done = command("accelerator_check", "--small", "--out", tmp_path)
    assert done.returncode == 130
    assert [row.name for row in rows.read(tmp_path / rows.NAME)] == ["a", "b"]
    assert "| b | seconds 1 |" in (tmp_path / page.NAME).read_text()
    assert [line.split("  ")[-1] for line in done.stdout.splitlines()] == [
        "a: seconds 1 (0.0 s)",
        "b: seconds 1 (0.0 s)",
    ]


def test_the_command_refuses_what_it_cannot_check(tmp_path):
    assert_one_line(command("accelerator_check", "--out", tmp_path / "new"), "JAX sees no accelerator, only the CPU")
    assert not (tmp_path / "new").exists()
    assert_one_line(command("accelerator_check", "--minutes", 0), "minutes: Input should be greater than 0, got 0.0")
    assert_one_line(command("accelerator_check", "--minutes", "inf"), "minutes")
    (tmp_path / rows.NAME).touch()
    assert_one_line(command("accelerator_check", "--small", "--out", tmp_path), "holds the rows of a check already")
    assert_one_line(command("accelerator_check", "--small", "--out", tmp_path / rows.NAME), "cannot be made")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("Unable to initialize 'cuda'"), "JAX_PLATFORMS='cuda': Unable to initialize 'cuda'"),
        (AssertionError(), "JAX_PLATFORMS='cuda': none starts"),
    ],
)
def test_a_backend_that_does_not_start_is_one_line(error, told, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(device.jax, "default_backend", lambda: _raise(error))
    with pytest.raises(UserError, match=f"JAX finds no device with {told}"):
        device.require_usable(needs_accelerator=False)


def test_without_a_cpu_backend_one_row_tells_it(monkeypatch):
    monkeypatch.setattr(device.jax, "local_devices", lambda backend: _raise(RuntimeError(f"Unknown backend {backend}")))
    (row,) = checks.run(against_cpu.checks_of(sizes.FULL), Budget(1))
    assert row.skipped == "JAX has no CPU backend here: unset JAX_PLATFORMS, or add cpu to it"


def test_errors_of_each_part_are_told():
    found = {"gradient": {"a": np.float32([1, 2]), "b": np.float32([[2.3]])}, "": np.float32(np.inf)}
    told = against_cpu.compared(
        found, {"gradient": {"a": np.float32([1, 2]), "b": np.float32([[2]])}, "": np.float32(1)}
    )
    np.testing.assert_allclose((told["gradient_error"], told["gradient_largest_error"]), (0.1, 0.15), rtol=1e-6)
    assert told["error"] == told["largest_error"] == np.inf


def test_weights_are_of_the_networks_shapes_and_none_is_zero():
    """A zero would let a program leave out what it multiplies; gains are around 1, kernels keep the size."""
    for name in ("tiny", "W3"):
        weights = inputs.inputs_of(WORKLOADS[name]).weights
        for path, leaf in jax.tree_util.tree_leaves_with_path(weights):
            assert leaf.dtype == np.float32
            assert np.mean(leaf == 0) < 1e-3
            if path[-1].key == "scale":
                assert 0.9 < np.mean(leaf) < 1.1
            if path[-1].key == "kernel" and leaf.size > 1000:
                np.testing.assert_allclose(np.std(leaf) * np.sqrt(np.prod(leaf.shape[:-1])), 1, atol=0.1)


def test_the_gradient_of_attention_is_that_by_each_argument():
    query, key, value = (jax.random.normal(key, (6, 2, 8)) for key in jax.random.split(jax.random.key(0), 3))
    args = (jnp.ones((1, 6, 2, 8)), *(each[None] for each in (query, key, value)))
    found = attention.PROGRAMS["gradient"](plain_attention)(*args)
    expected = jax.grad(lambda *args: jnp.sum(plain_attention(*args)), (0, 1, 2))(query, key, value)
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one[0], other, atol=1e-6), found, expected)


def test_fused_kernels_are_counted_in_a_program_s_text():
    text = 'custom_call_target="__cudnn$fmhaSoftmax", x custom_call_target="__cudnn$fmhaSoftmaxBackward", y'
    assert attention.num_fused(text + 'custom_call_target="__cublas$gemm"') == 2
    assert attention.num_fused('custom_call_target="tpu_custom_call"') == 1


def test_other_bits_and_new_compilations_are_noticed():
    count = itertools.count()
    assert repeats.same_bits(lambda key: {"a": jnp.zeros(2), "key": key}, (jax.random.key(0),)) == {
        "same_bits": True, "arrays": 2,
    }  # fmt: skip
    assert repeats.same_bits(lambda x: [x, np.float32([next(count) / 4, 0])], (np.ones(1),)) == {
        "same_bits": False, "arrays": 2, "differ": 1, "largest_difference": 0.25,
    }  # fmt: skip
    double = jax.jit(lambda x: 2 * x + 7)
    same, other = [(np.ones(3),), (np.zeros(3),)], [(np.ones(4),), (np.zeros(4),), (np.zeros(5),)]
    assert repeats.compiled_anew(double, same) == {"runs_with_other_numbers": 1, "compiled_anew": 0}
    assert repeats.compiled_anew(double, other) == {"runs_with_other_numbers": 2, "compiled_anew": 1}


def _limited(most):
    """A build that has memory for so many examples, and what it was asked for."""
    asked = []

    def build(*args):
        asked.append(args[-1])
        if args[-1] > most:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9 bytes")
        return "built"

    return build, asked


def test_a_batch_is_halved_until_it_fits():
    build, asked = _limited(20)
    assert throughput.first_that_fits(64, build) == (16, "built", 32)
    assert asked == [64, 32, 16]
    assert throughput.first_that_fits(16, build) == (16, "built", None)
    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
        throughput.first_that_fits(4, _limited(0)[0])
    with pytest.raises(ValueError, match="something else"):
        throughput.first_that_fits(4, lambda _: _raise(ValueError("something else")))


@pytest.mark.parametrize(
    ("start", "most_doublings", "minutes", "expected", "tried"),
    [
        ({"batches": {"net": 8}}, 9, 1, (32, 64, None), [16, 32, 64]),
        ({}, 9, 1, (32, 64, None), [1, 2, 4, 8, 16, 32, 64]),
        ({"batches": {"net": 8}, "too_large": {"net": 16}}, 9, 1, (8, 16, None), []),
        ({"batches": {"net": 8}}, 1, 1, (16, None, "after 1 doublings"), [16]),
        ({"batches": {"net": 8}}, 9, 0, (8, None, "the 0 minutes are up"), []),
    ],
)
def test_the_largest_batch_is_sought_by_doubling(start, most_doublings, minutes, expected, tried, monkeypatch):
    build, asked = _limited(40)
    monkeypatch.setattr(throughput, "_trainer", build)
    found = throughput.largest_batch(
        "net", WORKLOADS["tiny"], throughput.Found(**start), Budget(minutes, Clock()), most_doublings
    )
    assert tuple(found.values()) == expected
    assert asked == tried


def test_speed_is_by_the_fastest_turn_and_beside_the_product(monkeypatch):
    """64 examples of 3 evaluations of 1e9 operations in 0.5 s on 2 devices, of 1e12 a second each."""
    turns = iter([0.7, 0.5, 0.6])
    monkeypatch.setattr(throughput.timing, "repeat", lambda run, least: next(turns))
    monkeypatch.setattr(throughput, "forward_flops", lambda work: 1e9)
    function = TimedFunction(lambda: None, 64, 3)
    told = throughput.speed(function, WORKLOADS["tiny"], throughput.Found(product=1e12), 2, 1.0)
    expected = {"ms": 500, "images_per_s": 128, "percent_of_product": 19.2, "model_TFLOP": 0.192}
    assert told == pytest.approx(expected)


def test_operations_of_a_network_in_bfloat16_are_those_of_it_in_float32():
    work = sizes.SMALL.repeated
    exact = work._replace(network=work.network.clone(dtype=jnp.dtype(jnp.float32)))
    assert throughput.forward_flops(work) == throughput.forward_flops(exact) > 0


def test_pytorch_that_is_absent_is_skipped(monkeypatch):
    monkeypatch.setattr(beside_torch.importlib.util, "find_spec", lambda name: None)
    found = list(checks.run(beside_torch.checks_of(sizes.FULL, throughput.Found()), Budget(1)))
    assert {row.skipped for row in found} == {"torch is not installed"}
    assert [row.name for row in found][:3] == [
        "DiT-B/2, training, torch.compile, flash attention",
        "DiT-XL/2, training, torch.compile, flash attention",
        "DiT-B/2, guided samples by Heun, torch.compile, flash attention",
    ]


@pytest.mark.slow
def test_the_small_form_from_end_to_end(tmp_path):
    done = command("accelerator_check", "--small", "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    found = rows.read(tmp_path / rows.NAME)
    assert [row for row in found if row.failed] == []
    assert {row.group for row in found if row.skipped} <= {beside_torch.GROUP}
    by_name = {row.name: row.values for row in found}
    compared = [values for name, values in by_name.items() if "precision" in name]
    assert len(compared) == 8
    for values in compared:
        errors = [value for name, value in values.items() if not name.startswith("update")]
        assert 0 <= max(errors) < 1e-5
    fused = [row.values for row in found if row.group == attention.GROUP]
    assert len(fused) == 4
    assert all(0 < values["error"] < 0.01 and values["fused_kernels"] == 0 for values in fused)
    again = [row.values for row in found if row.group == repeats.GROUP]
    assert [values.get("same_bits") for values in again] == [True, True, None, None]
    assert [values.get("compiled_anew") for values in again] == [None, None, 0, 0]
    trained = by_name["DiT, training"]
    np.testing.assert_allclose(trained["images_per_s"] / trained["steps_per_s"], 8 * jax.local_device_count())
    assert trained["percent_of_product"] > 0
    assert found[-1].values["largest_on_each_device"] == 16
    assert (tmp_path / page.NAME).read_text() == page.page_of(found)
    assert len(done.stdout.splitlines()) == len(found) + 1
