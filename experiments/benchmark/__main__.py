"""Time the library beside a hand-written reference and its peers: in one run, those that are installed.

Each workload is timed by each method: in each round every implementation runs once, in an order that rotates. Before
that, samples are compared with the reference's, on the same weights and noise; one that differs gets no speed.
Written to OUT: rows.json, one row for each implementation.
"""

import dataclasses
import datetime
import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

import jax
import tyro
from pydantic import Field

from experiments.benchmark import compare, comparisons, memory, rows, startup, timing
from experiments.benchmark.rows import Row
from experiments.benchmark.timed_functions import Skipped, TimedFunction
from experiments.benchmark.workloads import ON_ACCELERATOR, ON_CPU, Case, Workload, WorkloadName, workload_of
from experiments.cli import main as cli
from experiments.cli.options import optional
from experiments.config.values import Count, NotNegative, Positive
from experiments.run import folder as run_folder
from experiments.runtime import progress

TOLERANCE = {"float32": 1e-5, "bfloat16": 5e-2}
"""How far samples may differ from the reference's, relative to the largest, by the type of the computation."""


BATCHES: dict[WorkloadName, tuple[int, ...]] = {
    "W1": (1, 10, 100, 1000),
    "W2": (1, 4, 16),
    "W4-B": (1, 4, 16, 256),
}
STEPS, SCALES = (10, 30, 300), (1, 4, 64)
"""Sizes of the curves, beside the works' own."""


@dataclass(frozen=True)
class More:
    """What is measured besides."""

    peers: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Time diffrax, flow_matching, torch.compile and hackable_diffusion too, where they are installed."""
    memory: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Measure the most memory of each implementation in "train" and "euler", each in a process of its own."""
    curves: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Time Euler at other batches and numbers of steps too, and sweeps of other numbers of scales, for the plots."""
    startup: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Compile each work's training step and sampler in new processes, with an empty and with a warm cache."""


@dataclass(frozen=True)
class Options:
    """What is timed, and how long."""

    works: Annotated[tuple[WorkloadName, ...], optional("WORK [WORK ...]", "what suits the device")] = ()
    """What is timed: networks and sizes, described in docs/throughput.md."""
    methods: Annotated[tuple[comparisons.Method, ...], Field(min_length=1)] = tuple(comparisons.METHODS)
    """How it is trained and sampled."""
    batch: Annotated[Count | None, optional("INT", "the works' own")] = None
    """Samples drawn together, and examples of a step."""
    rounds: Annotated[int, Field(ge=5)] = 5
    """Rounds of each comparison, in each of which every implementation is timed once."""
    turn_seconds: NotNegative = 0.2
    """Seconds for which a run is repeated at least."""
    stated_peak: Annotated[Positive | None, optional("FLOP/S", "no MFU")] = None
    """FLOP/s of the device by its maker, for the MFU."""
    out: Path = Path("runs/benchmark")
    """Folder of what is written."""
    compare: Annotated[Path | None, optional("FILE", "nothing")] = None
    """A rows.json of an earlier run: print ratios of the times and flag what became slower."""
    profile: Annotated[Path | None, optional("FOLDER", "none")] = None
    """Folder for a trace of one run of each of the library's programs, for TensorBoard or Perfetto."""
    more: Annotated[More, tyro.conf.OmitArgPrefixes] = dataclasses.field(default_factory=More)


def _head(case: Case) -> dict[str, Any]:
    work = workload_of(case)
    return {
        "work": case.work,
        "method": case.method,
        "batch": work.train_batch if case.method == "train" else work.batch,
        "num_scales": case.num_scales if case.method == "sweep" else None,
        "is_for_curves": case.is_for_curves,
        "device_kind": rows.device_kind(),
        "num_devices": jax.local_device_count(),
        "versions": rows.versions(),
        "date": datetime.date.today().isoformat(),
    }


def refused(work: Workload, implementations: dict[str, TimedFunction | Skipped]) -> dict[str, str]:
    """Those whose samples are not the first one's."""
    timed = {name: one for name, one in implementations.items() if isinstance(one, TimedFunction)}
    allowed = TOLERANCE[str(getattr(work.network, "dtype", "float32"))]
    differences = rows.disagreements(timed)
    return {
        name: f"its samples differ by {difference:.1e} of the largest, more than {allowed:g}"
        for name, difference in differences.items()
        if not difference <= allowed
    }


def _profile(folder: Path, case: Case, function: TimedFunction) -> None:
    with jax.profiler.trace(str(folder / f"{case.work}_{case.method}")):
        function.run()


def compare_implementations(options: Options, case: Case) -> list[Row]:
    """The rows of one comparison."""
    work = workload_of(case)
    implementations = {
        name: build() for name, build in comparisons.implementations_of(case, options.more.peers).items()
    }
    wrong = refused(work, implementations)
    timed = {name: one for name, one in implementations.items() if isinstance(one, TimedFunction) and name not in wrong}
    product = timing.product_of(getattr(work.network, "dtype", "float32"))
    rounds = timing.time_rounds(timed, product, options.rounds, options.turn_seconds)
    if options.profile is not None and comparisons.LIBRARY in timed:
        _profile(options.profile, case, timed[comparisons.LIBRARY])
    forward = rows.forward_flops(work)
    found = rows.rows_of(_head(case), implementations, wrong, rounds, forward, options.stated_peak)
    return [_with_memory(case, row) if options.more.memory else row for row in found]


def _with_memory(case: Case, row: Row) -> Row:
    if row.skipped is not None or case.method not in ("train", "euler"):
        return row
    return dataclasses.replace(row, peak_bytes=memory.of_implementation(case, row.implementation))


def _works(options: Options) -> tuple[WorkloadName, ...]:
    return options.works or (ON_CPU if jax.default_backend() == "cpu" else ON_ACCELERATOR)


def _cases(options: Options) -> Iterator[Case]:
    """The requested comparisons, and then, for curves, those of other sizes."""
    for work, method in itertools.product(_works(options), options.methods):
        yield Case(work, method, options.batch)
    if options.more.curves:
        yield from (case._replace(is_for_curves=True) for work in _works(options) for case in _curves(work))


def _curves(work: WorkloadName) -> list[Case]:
    cases = [Case(work, "euler", batch=size) for size in BATCHES.get(work, ())]
    if work == "W0":
        cases += [Case(work, "euler", evaluations=count) for count in STEPS]
        cases += [Case(work, "sweep", num_scales=count) for count in SCALES]
    return cases


def _startup(work_name: WorkloadName) -> list[Row]:
    head = _head(Case(work_name, "startup"))
    cold, warm = startup.cold_and_warm(work_name)
    return [
        Row(**head, implementation="cfgjax, empty cache", compile_s=cold),
        Row(**head, implementation="cfgjax, warm cache", compile_s=warm, ratio=warm / cold),
    ]


def _compile_time(row: Row) -> str:
    return f"{row.implementation} {row.compile_s:.2f} s"


def benchmark(options: Options) -> list[Row]:
    """All rows, printed and written as they come.

    Raises:
        UserError: an option out of range, a folder that cannot be written, or a file to compare that does not read.
    """
    run_folder.validate(options)
    earlier = None if options.compare is None else compare.read(options.compare)
    folder = run_folder.make_folder("out", options.out)
    found: list[Row] = []
    for case in progress.each(list(_cases(options)), "comparisons", "timing"):
        cli.print_result(f"\n{_title(case)}")
        some = compare_implementations(options, case)
        cli.print_result("\n".join(rows.table(some)))
        found += some
        _write(folder, found)
    for work_name in _works(options) if options.more.startup else ():
        some = _startup(work_name)
        print(f"\n{work_name}, compile time of a new process: " + ", ".join(map(_compile_time, some)), flush=True)
        found += some
        _write(folder, found)
    print(f"\nwrote {folder / 'rows.json'}")
    if earlier is not None:
        print("\n".join(compare.lines(earlier, found)))
    return found


def _title(case: Case) -> str:
    names = {"batch": case.batch, "evaluations": case.evaluations}
    sizes = [f"{name} {size}" for name, size in names.items() if size is not None]
    sizes += [f"{case.num_scales} scales"] if case.method == "sweep" else []
    return ", ".join([case.work, comparisons.METHODS[cast(comparisons.Method, case.method)], *sizes])


def _write(folder: Path, found: list[Row]) -> None:
    run_folder.write_atomically(folder / "rows.json", json.dumps([row.as_json() for row in found], indent=1) + "\n")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # peers share the device
    jax.config.update("jax_enable_compilation_cache", False)  # compile times are measured
    cli.main(benchmark, Options, "experiments.benchmark", __doc__, args)


if __name__ == "__main__":
    main()
