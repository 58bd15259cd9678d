"""What collectives cost on paper, by hand, and the page of records."""

import json

import pytest

from experiments.dryrun import work
from experiments.dryrun.scaling import Network, collective_seconds, on_paper
from tests.support.commands import assert_one_line, command

TWO_MACHINES = Network(fast=2.0, slow=0.5, island=8)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("all-reduce", 2 * (7 / 8 * 16 / 2 + 1 / 2 * 2 / 0.5)),
        ("all-gather", 7 / 8 * 16 / 2 + 1 / 2 * 2 / 0.5),
        ("reduce-scatter", 7 / 8 * 256 / 2 + 1 / 2 * 32 / 0.5),
        ("all-to-all", 7 / 8 * 8 / 2 + 1 / 2 * 16 / 0.5),
        ("collective-permute", 16 / 0.5),
    ],
)
def test_collectives_of_two_machines_pass_both_kinds_of_links(kind, expected):
    """16 bytes on each of 2 x 8 devices: 2 bytes/s within a machine, 1/2 byte/s for each device between them."""
    assert collective_seconds(kind, 16.0, 16, TWO_MACHINES) == pytest.approx(expected)


def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather():
    parts = collective_seconds("reduce-scatter", 1.0, 16, TWO_MACHINES)
    whole = collective_seconds("all-gather", 16.0, 16, TWO_MACHINES)
    assert collective_seconds("all-reduce", 16.0, 16, TWO_MACHINES) == pytest.approx(parts + whole)


@pytest.mark.parametrize("kind", ["all-reduce", "all-gather", "reduce-scatter", "all-to-all"])
def test_one_device_waits_for_nobody(kind):
    assert collective_seconds(kind, 16.0, 1, TWO_MACHINES) == 0.0


def test_a_permutation_takes_one_link_of_several():
    """An eighth of 2 bytes/s."""
    assert collective_seconds("collective-permute", 16.0, 4, Network(2.0, links=8)) == 64.0


def test_on_paper_work_is_by_cycles_or_by_half_of_the_peak():
    """800 FLOPs on 8 devices at half of 50 FLOP/s: 4 s; 16 bytes averaged at 7 bytes/s: 4 s, too."""
    sent = {"all-reduce": {"count": 1, "bytes": 16, "asynchronous": 0}}
    found = on_paper({"model_flops": 800.0, "collectives": sent}, 8, 50.0, Network(7.0))
    assert found == (100.0, 16, 4.0, pytest.approx(4.0))
    assert (found.alone, found.hidden) == (pytest.approx(8.0), pytest.approx(4.0))
    by_cycles = {"model_flops": 800.0, "collectives": sent, "seconds_at_clock": 2.0}
    assert on_paper(by_cycles, 8, 50.0, Network(7.0)).work == 2.0


def _record(on, num_devices, mib, seconds=0.02):
    """The record of a program of so many seconds of work and MiB that are averaged, and of one that lacks memory."""
    return {
        "preset": "by_hand", "size": "DiT-B/2", "on": on, "num_devices": num_devices, "batch_size": 256,
        "date": "2026-11-28", "versions": {"jax": "0.10.2", "libtpu": "0.0.42.1"},
        "command": f"python -m experiments.dryrun by_hand --on {on} --json",
        "replicated": {
            "model_flops": num_devices * 1e12, "state_bytes_per_device": 2**31, "temporary_bytes_per_device": 2**30,
            "lacking_bytes_per_device": -1.0, "attention": {"flash": 3, "flash_backward": 2, "plain": 0},
            "collectives": {"all-reduce": {"count": 1, "bytes": mib * 2**20, "asynchronous": 0}}, "cycles": 20_000_000,
            "cycles_by_kind": dict.fromkeys(work.KINDS, 0) | {"products": 15_000_000, "attention": 5_000_000},
            "seconds_at_clock": seconds, "share_of_peak": 0.25, "trace_seconds": 1.0, "compile_seconds": 29.0,
        },
        "sharded": {
            "model_flops": num_devices * 1e12, "state_bytes_per_device": 2**28, "lacking_bytes_per_device": 3 * 2**30,
            "trace_seconds": 1.0, "compile_seconds": 4.0,
        },
    }  # fmt: skip


def _page(tmp_path, *records):
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    done = command("dryrun.write_page", tmp_path / "rows.jsonl", "--out", tmp_path / "made/page.md")
    assert done.returncode == 0, done.stderr
    return (tmp_path / "made/page.md").read_text().splitlines()


def test_the_page_has_a_row_for_each_program(tmp_path):
    """Of one that lacks memory nothing more is known; 2 x 7/8 x 16 MiB at 200 GB/s are 0.147 ms."""
    page = _page(tmp_path, _record("tpu:v5e:2x4", 8, 16))
    assert "Made on 2026-11-28 with jax 0.10.2, libtpu 0.0.42.1, by" in page
    assert "python -m experiments.dryrun by_hand --on tpu:v5e:2x4 --json  # >> rows.jsonl" in page
    start = "| DiT-B/2, 256 | tpu:v5e:2x4 |"
    assert [line for line in page if line.startswith(start)] == [
        f"{start} replicated | 2.00 | 1.00 | fits | 3 + 2 | 30 |",
        f"{start} sharded | 0.25 | - | lacks 3.0 GiB | - | 5 |",
        f"{start} replicated | 20 | 25.0% | 75% | 25% |",
        f"{start} replicated | 1 | 16 | 20 | 0.147 | 100% | 100% |",
    ]
    assert not any("scaling stops" in line for line in page)


def test_the_page_tells_where_scaling_stops(tmp_path):
    """3,000 MiB on 64 chips at 400 GB/s are 15.5 ms, beside 80 ms of work; 6,000 MiB on 256 are 31.3 ms, beside 20.

    On an H100 alone nothing waits. Eight pass 2 x 7/8 of 7 GiB at 450 GB/s in 29.2 ms, 64 besides 2 x 7/8 of an eighth
    at 50 GB/s, in 62.1 ms together; of 160 ms of work these have 20 and 2.5 each.
    """
    tpus = [("tpu:v6e:16x16", 256, 6000, 0.02), ("tpu:v6e:8x8", 64, 3000, 0.08)]
    gpus = [("gpu:h100", 1, 7168, 0.16), ("gpu:h100:64", 64, 7168, 0.0025), ("gpu:h100:8", 8, 7168, 0.02)]
    page = _page(tmp_path, *(_record(*each) for each in [*tpus, *gpus]))
    assert [line for line in page if "scaling stops" in line] == [
        "- DiT-B/2, 256, replicated, gpu:h100, 1, 8, 64 devices: scaling stops at 8 (41%) alone, at 64 (4%) hidden.",
        "- DiT-B/2, 256, replicated, tpu:v6e, 64, 256 devices: scaling stops at 256 (47%) alone, "
        "at none of these (64% at 256) hidden.",
    ]


def test_scaling_stops_where_work_is_no_longer_divided(tmp_path):
    """Without a byte to send, four times the devices in the same time are a quarter of the efficiency."""
    page = _page(tmp_path, _record("tpu:v6e:4x4", 16, 0), _record("tpu:v6e:8x8", 64, 0))
    assert any("scaling stops at 64 (25%) alone, at 64 (25%) hidden." in line for line in page)


@pytest.mark.parametrize("line", ["{", "3", '{"on": "cpu"}', '{"on": "tpu:v6e:4x4"}', "", "tpu:v9:2x4", "cpu"])
def test_a_page_of_no_records_is_refused(line, tmp_path):
    """Lines of another kind, and records of devices that the page does not know."""
    other = json.dumps(_record(line, 8, 1)) if line in ("cpu", "tpu:v9:2x4") else line
    (tmp_path / "rows.jsonl").write_text(json.dumps(_record("gpu:h100", 1, 1)) + "\n" + other + "\n")
    done = command("dryrun.write_page", tmp_path / "rows.jsonl", "--out", tmp_path / "page.md")
    assert_one_line(done, "rows.jsonl:2 is no record of experiments.dryrun")
    assert not (tmp_path / "page.md").exists()


def test_a_page_of_nothing_is_refused(tmp_path):
    (tmp_path / "rows.jsonl").touch()
    assert_one_line(command("dryrun.write_page", tmp_path / "rows.jsonl"), "records must hold at least one line")
