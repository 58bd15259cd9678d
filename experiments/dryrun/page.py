"""The page of what compilers say of programs: a row for each program of each record, and where scaling stops."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any, NamedTuple

from experiments.dryrun.render import GIB, MIB, fit, programs_of
from experiments.dryrun.scaling import ASSUMED_SHARE, LEAST, OnPaper, efficiencies, limit, on_paper
from experiments.dryrun.targets import chip_of
from experiments.dryrun.work import KINDS

HEAD = """# Accelerators
What the compilers of TPUs and GPUs say of this library's programs, on a CPU. Nothing was run: no time here is one on a
device. How to ask them about a preset of your own: [before a large run](commands.md#before-a-large-run).
"""
MEMORY = """GiB on each device, of the compiled programs. Flash kernels: forward + of gradients. A GPU's compiler had no
device to try kernels on; those that it would choose there may take other temporary memory.
"""
CYCLES = """By the TPU's compiler, loops multiplied by their turns, without the waits for collectives. Of the peak: the
network's operations over the chip's in that time.
"""
SCALING = f"""The examples are those of all devices together. On each device: the network's TFLOP; MiB of the
collectives' values; ms of the work, by the estimated cycles or, for GPUs, where nothing estimates any, at
{ASSUMED_SHARE:.0%} of the peak; ms of the collectives, at the least, all links busy by the makers' bandwidths
(`experiments/dryrun/scaling.py`). Efficiency: the speed for each device over that on the fewest devices listed, where
the collectives run *alone* or are *hidden*, the shorter beside the longer. Scaling stops where it falls below
{LEAST:.0%}: too little is left for a device to do, or the collectives take too long.
"""


class Line(NamedTuple):
    """One program of a record, or what is known of it: its lack of memory, perhaps, alone."""

    record: dict[str, Any]
    program: str
    figures: dict[str, Any]

    @property
    def network(self) -> str:
        """The network and the examples of a run, in words."""
        return f"{self.record['size'] or self.record['preset']}, {self.record['batch_size']}"

    @property
    def devices(self) -> str:
        """The kind of devices, such as tpu:v6e."""
        return ":".join(self.record["on"].split(":")[:2])

    @property
    def start(self) -> list[str]:
        """What every row begins with."""
        return [self.network, self.record["on"], self.program]

    @property
    def on_paper(self) -> OnPaper:
        """Its run on paper, of a program that was compiled."""
        chip = chip_of(self.record["on"])
        return on_paper(self.figures, self.record["num_devices"], chip.peak, chip.network)


def _lines(records: list[dict[str, Any]]) -> list[Line]:
    """The programs, those of one network and kind of devices together, by the number of devices."""
    found = [Line(record, *each) for record in records for each in programs_of(record).items()]
    return sorted(found, key=lambda line: (line.network, line.devices, line.record["num_devices"]))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(columns: list[str], rows: list[list[str]]) -> list[str]:
    head = ["network, examples", "on", "program", *columns]
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _memory(lines: list[Line]) -> list[str]:
    rows = []
    for line in lines:
        figures, attention = line.figures, line.figures.get("attention")
        sizes = [figures.get(f"{kind}_bytes_per_device") for kind in ("state", "temporary")]
        cells = ["-" if size is None else f"{size / GIB:.2f}" for size in sizes]
        kernels = "-" if attention is None else f"{attention['flash']} + {attention['flash_backward']}"
        seconds = figures["trace_seconds"] + figures["compile_seconds"]
        rows.append([*line.start, *cells, fit(figures), kernels, f"{seconds:.0f}"])
    return _table(["state", "temporary", "of the device", "flash kernels", "s to compile"], rows)


def _cycles(lines: list[Line]) -> list[str]:
    those = [line for line in lines if line.figures.get("cycles")]
    kinds = [kind for kind in KINDS if any(line.figures["cycles_by_kind"][kind] for line in those)]
    rows = []
    for line in those:
        total = line.figures["cycles"]
        shares = [f"{line.figures['cycles_by_kind'][kind] / total:.0%}" for kind in kinds]
        rows.append([*line.start, _number(total / 1e6), f"{line.figures['share_of_peak']:.1%}", *shares])
    return _table(["million cycles", "of the peak", *kinds], rows)


def _family(line: Line) -> tuple[str, str, str]:
    return line.network, line.program, line.devices


def _scaling(lines: list[Line]) -> list[str]:
    """A row for each program, and a sentence on each that was compiled for several numbers of the same devices."""
    rows, sentences = [], []
    for family, some in groupby(sorted(lines, key=_family), _family):
        papers = [(line, line.record["num_devices"], line.on_paper) for line in some]
        alone = efficiencies({count: found.alone for _, count, found in papers})
        hidden = efficiencies({count: found.hidden for _, count, found in papers})
        for line, count, found in papers:
            numbers = found.flops / 1e12, found.bytes / MIB, 1e3 * found.work, 1e3 * found.waits
            rows.append([*line.start, *map(_number, numbers), f"{alone[count]:.0%}", f"{hidden[count]:.0%}"])
        if len(alone) > 1:
            start = f"- {', '.join(family)}, {', '.join(map(str, alone))} devices"
            sentences.append(f"{start}: scaling stops {_where(alone)} alone, {_where(hidden)} hidden.")
    columns = ["TFLOP", "MiB", "ms of work", "ms of collectives", "alone", "hidden"]
    return [*_table(columns, rows), "", *sentences]


def _where(found: Mapping[int, float]) -> str:
    """The number of devices at which scaling stops, with the efficiency there or at the most devices."""
    count, most = limit(found), max(found)
    return f"at none of these ({found[most]:.0%} at {most})" if count is None else f"at {count} ({found[count]:.0%})"


def page(records: list[dict[str, Any]]) -> str:
    """The page of some records."""
    lines = _lines(records)
    compiled = [line for line in lines if "collectives" in line.figures]
    dates = sorted({record["date"] for record in records})
    versions = sorted({f"{name} {version}" for record in records for name, version in record["versions"].items()})
    commands = dict.fromkeys(f"{line.record['command']}  # >> rows.jsonl" for line in lines)
    return "\n".join(
        [
            HEAD,
            f"Made on {', '.join(dates)} with {', '.join(versions)}, by",
            *("```", *commands, "python -m experiments.dryrun.write_page rows.jsonl", "```"),
            *("", "## Memory and attention", MEMORY, *_memory(lines)),
            *("", "## Estimated cycles", CYCLES, *_cycles(lines)),
            *("", "## Scaling on paper", SCALING, *_scaling(compiled)),
            "",
        ]
    )
