"""The benchmark: the reference equals the library, operations by hand, and the smallest work from end to end."""

import dataclasses
import itertools
import json
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cfgjax.models import MLP, convolution
from experiments.benchmark import __main__ as benchmark
from experiments.benchmark import (
    compare,
    comparisons,
    flops,
    in_cfgjax,
    memory,
    reference,
    rows,
    timed_functions,
    timing,
    workloads,
    write_page,
)
from experiments.benchmark.__main__ import Options
from experiments.benchmark.reference_networks import network_of
from experiments.benchmark.timed_functions import Skipped, TimedFunction
from experiments.cli.main import UserError
from tests.support.commands import assert_one_line, finish, start
from tests.support.small_works import SMALL

HEAD = ("work", "method", "batch", "device_kind", "num_devices", "versions", "date")


@pytest.fixture(scope="module", autouse=True)
def _broadcasting_as_by_hand():
    """The reference spreads axes by hand, which the library's own code is not allowed."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(params=SMALL)
def work(request):
    """A small work of each kind of network."""
    return SMALL[request.param]


@pytest.mark.slow
def test_the_reference_is_the_library_s_network(work):
    inputs = workloads.inputs_of(work)
    t = jnp.linspace(0.1, 0.9, work.batch)
    found = jax.jit(network_of(work))(inputs.weights, inputs.noise, t, inputs.labels)
    expected = jax.jit(jax.vmap(work.network.apply, (None, 0, 0, 0)))(inputs.weights, inputs.noise, t, inputs.labels)
    assert np.std(expected) > 0.05
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.max(np.abs(expected)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "method"),
    [("MLP", "euler"), ("MLP", "heun"), ("MLP", "dpm_solver"), ("transformer", "heun"), ("unet", "heun")],
)
def test_the_reference_draws_the_library_s_samples(name, method):
    """Each rule with one network, each network with one rule."""
    work, ts = SMALL[name], workloads.grid(4)
    inputs = workloads.inputs_of(work)
    arguments = (inputs.weights, jax.random.key(0), inputs.noise, inputs.labels, jnp.float32(3))
    expected = jax.jit(in_cfgjax.sampler_of(in_cfgjax.draw_of(work, method, ts), work.sample_chunk))(*arguments)
    for chunk in (None, 3) if name == "MLP" else (3,):
        found = jax.jit(reference.sampler_of(work, method, chunk))(*arguments, ts)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.max(np.abs(expected)))


def test_the_reference_takes_a_scale_for_each_sample_in_chunks():
    work, scales = SMALL["MLP"], np.linspace(0, 5, 6, dtype=np.float32)
    inputs, ts = workloads.inputs_of(work), workloads.grid(4)
    arguments = inputs.weights, jax.random.key(0), inputs.noise, inputs.labels
    expected = jax.jit(in_cfgjax.sampler_of(in_cfgjax.draw_of(work, "euler", ts), None))(*arguments, scales)
    for chunk in (None, 3):
        found = jax.jit(reference.sampler_of(work, "euler", chunk))(*arguments, scales[:, None], ts)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.max(np.abs(expected)))


def test_products_are_counted_as_by_hand():
    """A MLP of width h, depth d and embedding e on n numbers: 2 for each weight of each of its layers."""
    n, h, e, depth = 2, 16, 8, 3
    network = MLP(num_classes=3, width=h, embedding_width=e, depth=depth)
    arguments = jnp.zeros(n), jnp.zeros(()), jnp.zeros((), jnp.int32)
    weights = network.init(jax.random.key(0), *arguments)
    time, modulation = 2 * e * e, e * 2 * h
    by_hand = time + n * h + depth * (modulation + 2 * h * h) + modulation + h * n
    assert flops.count(network.apply, weights, *arguments) == 2 * by_hand


def test_attention_and_convolutions_are_counted_as_by_hand():
    tokens, heads, width = 6, 2, 4
    from cfgjax.models.blocks import attention

    query = jnp.zeros((tokens, heads, width))
    assert flops.count(attention, query, query, query) == 2 * (2 * heads * tokens * tokens * width)
    kernel, image = jnp.zeros((3, 3, 5, 7)), jnp.zeros((1, 8, 8, 5))

    fixed = {"padding": "SAME", "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    for convolve, stride in itertools.product((jax.lax.conv_general_dilated, convolution.convolve), (1, 2)):
        found = flops.count(partial(convolve, window_strides=(stride, stride), **fixed), image, kernel)
        assert found == 2 * (8 // stride) ** 2 * 7 * 9 * 5


def test_a_scan_counts_for_each_turn_and_a_while_is_refused():
    """What the compiler's own count does not do: a body that runs 10 times is 10 bodies."""
    matrix = jnp.ones((3, 3))

    def repeated(x):
        return jax.lax.scan(lambda x, _: (matrix @ x, None), x, length=10)[0]

    assert flops.count(repeated, jnp.ones(3)) == 10 * 2 * 9
    with pytest.raises(ValueError, match="while"):
        flops.count(lambda x: jax.lax.while_loop(lambda x: x[0] < 5, lambda x: matrix @ x, x), jnp.ones(3))


def test_of_branches_the_dearest_counts():
    matrix = jnp.ones((3, 3))

    def either(x):
        return jax.lax.cond(x[0] > 0, lambda x: matrix @ (matrix @ x), lambda x: matrix @ x, x)

    assert flops.count(either, jnp.ones(3)) == 2 * 2 * 9


def test_published_transformers_have_their_published_operations():
    """DiT's multiply-adds at 32 x 32 x 4, in billions (arXiv 2212.09748, table 1): B/2 23.0, L/2 80.7, XL/2 118.6."""
    for size, published in (("B", 23.0), ("L", 80.7), ("XL", 118.6)):
        network = workloads.WORKLOADS[f"W4-{size}"].network
        arguments = jnp.zeros((32, 32, 4)), jnp.zeros(()), jnp.zeros((), jnp.int32)
        weights = jax.eval_shape(network.init, jax.random.key(0), *arguments)
        np.testing.assert_allclose(flops.count(network.apply, weights, *arguments) / 2e9, published, rtol=0.01)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The smallest work, every method: its rows and its folder."""
    folder = tmp_path_factory.mktemp("benchmark")
    options = Options(works=("tiny",), turn_seconds=0.0, out=folder)
    return benchmark.benchmark(options), folder


@pytest.mark.slow
def test_every_method_of_the_smallest_work_gives_its_rows(tiny):
    found, folder = tiny
    assert [row.method for row in found if row.implementation == comparisons.LIBRARY] == list(comparisons.METHODS)
    assert compare.read(folder / "rows.json") == [
        dataclasses.replace(row, quartiles=row.quartiles and tuple(row.quartiles)) for row in found
    ]
    for row in found:
        assert row.skipped is None
        assert row.rounds == 5
        assert 0 < row.min_s <= row.quartiles[0] <= row.median_s <= row.quartiles[1]
        assert row.ratio > 0
        assert 0 < row.fraction_of_gemm_peak < 1
        assert row.disagreement is None or row.disagreement < 1e-5


@pytest.mark.slow
def test_counts_of_the_smallest_work(tiny):
    """16 x 1 MLP, batch 4, 4 evaluations: 2 for each step guided, 1 for each that is not, 3 in training."""
    network_flops = 2 * (2 * 64 * 64 + 2 * 16 + (64 * 32 + 2 * 16 * 16) + 64 * 32 + 16 * 2)
    by_name = {(row.method, row.implementation): row for row in tiny[0]}
    for method, evaluations, examples in (
        ("train", 3, 8),
        ("euler", 8, 4),
        ("heun", 8, 4),
        ("interval", 6, 4),
        ("sweep", 8, 16),
    ):
        row = by_name[method, comparisons.LIBRARY]
        assert row.evaluations == evaluations
        np.testing.assert_allclose(row.examples_per_s * row.min_s, examples)
        np.testing.assert_allclose(row.model_flops, network_flops * evaluations * examples)
        np.testing.assert_allclose(row.evaluations_per_s, row.examples_per_s * evaluations)


@pytest.mark.slow
def test_the_page_holds_every_row_of_every_part(tiny, tmp_path):
    """A device whose benchmark was run in two parts is one section; a skipped implementation and a curve's rows too."""
    found, folder = tiny
    (euler,) = (row for row in found if (row.method, row.implementation) == ("euler", comparisons.LIBRARY))
    absent = rows.Row(**{name: getattr(euler, name) for name in HEAD}, implementation="absent", skipped="not installed")
    larger = dataclasses.replace(euler, batch=64, examples_per_s=1e6, is_for_curves=True)
    (tmp_path / "rows.json").write_text(json.dumps([absent.as_json(), larger.as_json()]))
    write_page.write(write_page.Options((tmp_path / "rows.json", folder / "rows.json"), tmp_path / "docs"))
    text = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert text.count(f"## {euler.device_kind}\n") == 1
    assert "| absent | skipped: not installed |" in text
    assert "1e+06" not in text
    numbers = [float(cell.replace(",", "")) for cell in re.findall(r"(?<=\| )[\d.,]+(?= \|)", text)]
    for row in found:
        assert f"| {row.implementation}{f' ({row.note})' if row.note else ''} |" in text
        assert min(abs(number / row.examples_per_s - 1) for number in numbers) < 5e-3
    with Image.open(next((tmp_path / "docs" / "benchmarks").glob("*.png"))) as picture:
        assert np.asarray(picture.convert("L")).std() > 10


def test_an_implementation_with_other_samples_gets_no_speed():
    def function(offset):
        return TimedFunction(lambda: None, 2, 1, output=np.array([1.0, 2.0]) + offset)

    work = workloads.WORKLOADS["tiny"]
    implementations = {
        "first": function(0),
        "rounded": function(1e-6),
        "wrong": function(1e-3),
        "absent": Skipped("not installed"),
    }
    refused = benchmark.refused(work, implementations)
    assert list(refused) == ["wrong"]
    timed = {name: implementations[name] for name in ("first", "rounded")}
    rounds = timing.time_rounds(timed, lambda least: 1e9, 5, 0.0)
    head = dict.fromkeys(HEAD, "") | {"batch": 2, "num_devices": 1, "versions": {}}
    found = {row.implementation: row for row in rows.rows_of(head, implementations, refused, rounds, 10, 1e12)}
    assert found["rounded"].examples_per_s > 0
    assert found["wrong"].examples_per_s is None
    assert "differ by 5.0e-04" in found["wrong"].skipped
    assert found["absent"].skipped == "not installed"
    np.testing.assert_allclose(found["first"].mfu, 20 / found["first"].min_s / 1e12)


def test_a_sample_that_is_not_a_number_disagrees():
    implementations = {
        "first": TimedFunction(lambda: None, 1, 1, output=np.ones(2)),
        "broken": TimedFunction(lambda: None, 1, 1, output=np.full(2, np.nan)),
    }
    assert list(benchmark.refused(workloads.WORKLOADS["tiny"], implementations)) == ["broken"]


def test_implementations_rotate_and_every_run_is_counted():
    order, clock = [], iter(range(1000))
    implementations = {name: TimedFunction(lambda name=name: order.append(name), 1, 1) for name in "abc"}
    rounds = timing.time_rounds(implementations, lambda least: float(next(clock)), 3, 0.0)
    assert "".join(order) == "abc" + "abc" + "bca" + "cab"
    assert rounds.products.tolist() == [0, 1, 2]
    assert all(len(seconds) == 3 for seconds in rounds.seconds.values())


def test_comparison_flags_what_became_slower_beyond_the_machine():
    row = rows.Row("W0", "euler", "cfgjax", 1, "", 1, {}, "", examples_per_s=100.0, gemm_peak_measured=2e11)

    def line(**changes):
        return compare.lines([row], [dataclasses.replace(row, **changes)])[0]

    assert "SLOWER" not in line(examples_per_s=95.0)
    assert line(examples_per_s=50.0).endswith("SLOWER")
    assert "SLOWER" not in line(examples_per_s=50.0, gemm_peak_measured=1e11)
    for other in (
        {"method": "heun"},
        {"batch": 2},
        {"evaluations": 8.0},
        {"num_scales": 4},
        {"implementation": "diffrax"},
    ):
        assert compare.lines([row], [dataclasses.replace(row, **other)]) == ["no row in common"]


def test_a_program_is_traced_once_for_all_scales_and_keys():
    traces, work = [], workloads.WORKLOADS["tiny"]
    draw = in_cfgjax.draw_of(work, "euler", workloads.grid(4))

    def counted(*args):
        traces.append(1)
        return draw(*args)

    program, inputs = jax.jit(in_cfgjax.sampler_of(counted, None)), workloads.inputs_of(work)
    for seed, scale in ((0, 1.0), (1, 3.0), (2, 7.5)):
        program(inputs.weights, jax.random.key(seed), inputs.noise, inputs.labels, jnp.float32(scale))
    assert len(traces) == 1


def test_an_executable_reports_its_trace_and_compile_time():
    executable, trace_seconds, compile_seconds = timed_functions.compiled(jax.jit(jnp.sin), jnp.ones(3))
    np.testing.assert_allclose(executable(jnp.ones(3)), np.sin(1.0), rtol=1e-6)
    assert trace_seconds > 0
    assert compile_seconds > 0


@pytest.mark.slow
def test_memory_of_a_larger_batch_is_larger():
    """10,000 samples of W1 at once hold at least their hidden layers, 256 numbers each for both sides of guidance."""
    few, many = (
        memory.of_implementation(workloads.Case("W1", "euler", batch, 2), comparisons.WHOLE) for batch in (100, 10_000)
    )
    assert many - few > 2 * 9_900 * 256 * 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--works", "W9"], "W9"),
        (["--works", "tiny", "--rounds", "2"], "rounds: Input should be greater than or equal to 5, got 2"),
        (["--works", "tiny", "--compare", "none.json"], "none.json cannot be read: No such file or directory"),
    ],
)
def test_a_wrong_option_is_one_line(arguments, expected):
    done = finish(start("benchmark", *arguments))
    assert_one_line(done, expected)


def test_a_file_of_other_things_is_not_compared(tmp_path):
    (tmp_path / "rows.json").write_text("[1, 2]")
    done = finish(start("benchmark", "--works", "tiny", "--compare", tmp_path / "rows.json", "--out", tmp_path / "out"))
    assert_one_line(done, "does not hold the rows of a benchmark")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_rows_are_json_with_all_that_the_contract_names(tiny):
    named = (
        "work method batch evaluations device_kind num_devices versions trace_s compile_s median_s quartiles "
        "examples_per_s evaluations_per_s model_flops gemm_peak_measured fraction_of_gemm_peak mfu peak_bytes"
    )
    for row in json.loads((tiny[1] / "rows.json").read_text()):
        assert set(named.split()) <= row.keys()


def test_not_a_number_is_no_peak():
    with pytest.raises(UserError, match="stated_peak"):
        benchmark.benchmark(Options(("tiny",), stated_peak=float("nan")))


def test_rows_written_under_the_old_name_are_read(tmp_path):
    made = [rows.Row("W0", "euler", name, 1, "", 1, {}, "", quartiles=(0.5, 1.0)) for name in ("cfgjax", "reference")]
    old = [row.as_json() for row in made]
    for row in old:
        row["competitor"] = row.pop("implementation")
    (tmp_path / "rows.json").write_text(json.dumps(old))
    assert compare.read(tmp_path / "rows.json") == made
