"""A benchmark's rows: one for each implementation in a comparison, with everything its speed is judged by."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import jax
import numpy as np
from pydantic import AliasChoices, Field

from experiments.benchmark import flops
from experiments.benchmark.timed_functions import Skipped, TimedFunction
from experiments.benchmark.timing import Rounds
from experiments.benchmark.workloads import Workload, shapes_of
from experiments.runtime.versions import with_python

VERSIONED = ("jax", "jaxlib", "flax", "optax", "numpy", "diffrax", "torch", "flow_matching", "hackable_diffusion")


@dataclass(frozen=True)
class Row:
    """One implementation in one comparison; the numbers of a skipped one are None.

    Attributes:
        ratio: time for one example against the first implementation's, the median over the rounds' ratios.
        ratio_of_least: the same of the least times.
        by_example: seconds for one example, in each round.
        examples_per_s: by the least time, as are evaluations_per_s and the fractions.
        model_flops: of one run, forward evaluations counted on the trace; a training example has three.
        gemm_peak_measured: FLOP/s of a matrix product, the most of this comparison's rounds.
        mfu: model FLOP/s against ``stated_peak``, where one was stated.
        disagreement: largest difference of a sample from the first implementation's, relative to the largest sample.
        peak_bytes: most memory during a warm run in a process of its own, beyond what the imports took.
    """

    work: str
    method: str
    implementation: Annotated[str, Field(validation_alias=AliasChoices("implementation", "competitor"))]
    batch: int
    device_kind: str
    num_devices: int
    versions: dict[str, str]
    date: str
    is_for_curves: bool = False
    skipped: str | None = None
    note: str = ""
    evaluations: float | None = None
    num_scales: int | None = None
    trace_s: float | None = None
    compile_s: float | None = None
    rounds: int | None = None
    min_s: float | None = None
    median_s: float | None = None
    quartiles: tuple[float, float] | None = None
    by_example: tuple[float, ...] | None = None
    ratio: float | None = None
    ratio_of_least: float | None = None
    examples_per_s: float | None = None
    evaluations_per_s: float | None = None
    model_flops: float | None = None
    gemm_peak_measured: float | None = None
    gemm_spread: float | None = None
    fraction_of_gemm_peak: float | None = None
    stated_peak: float | None = None
    mfu: float | None = None
    disagreement: float | None = None
    peak_bytes: int | None = None

    def as_json(self) -> dict[str, Any]:
        """The row as JSON takes it."""
        return asdict(self)


def versions(names: Iterable[str] = VERSIONED) -> dict[str, str]:
    """The versions of what is installed of the libraries that matter."""
    return with_python(names)


def device_kind() -> str:
    """What computes: the accelerator's name, or the number of cores this process may use."""
    kind = jax.local_devices()[0].device_kind
    return f"{len(os.sched_getaffinity(0))} CPU cores" if kind == "cpu" else kind


def forward_flops(work: Workload) -> int:
    """The operations of one evaluation of the work's network on one example."""
    network: Any = work.network
    return flops.count(network.apply, *shapes_of(work))


def disagreements(implementations: Mapping[str, TimedFunction]) -> dict[str, float]:
    """The largest difference of each implementation's output from the first's, relative to the largest value."""
    outputs = {name: function.output for name, function in implementations.items() if function.output is not None}
    if not outputs:
        return {}
    first = next(iter(outputs.values()))
    size = np.max(np.abs(first))
    return {name: float(np.max(np.abs(output - first)) / size) for name, output in outputs.items()}


def rows_of(
    head: Mapping[str, Any], implementations: Mapping[str, TimedFunction | Skipped], refused: Mapping[str, str],
    rounds: Rounds, forward: int, stated_peak: float | None,
) -> list[Row]:  # fmt: skip
    """The rows of one comparison, in the implementations' order.

    Args:
        head: what all rows share: work, method, batch, device, versions, date.
        implementations: by name.
        refused: those whose samples are wrong, with the reason.
        rounds: the times of the others.
        forward: operations of one evaluation on one example.
        stated_peak: FLOP/s of the device by its maker.
    """
    differences = disagreements({name: one for name, one in implementations.items() if isinstance(one, TimedFunction)})
    first, rows = None, []
    for name, implementation in implementations.items():
        if isinstance(implementation, Skipped) or name in refused:
            reason = implementation.reason if isinstance(implementation, Skipped) else refused[name]
            rows.append(Row(**head, implementation=name, skipped=reason, disagreement=differences.get(name)))
            continue
        by_example = rounds.seconds[name] / implementation.examples
        first = by_example if first is None else first
        rows.append(
            Row(
                **head,
                implementation=name,
                note=implementation.note,
                evaluations=implementation.evaluations,
                trace_s=implementation.trace_seconds,
                compile_s=implementation.compile_seconds,
                disagreement=differences.get(name),
                by_example=tuple(by_example.tolist()),
                ratio=float(np.median(by_example / first)),
                ratio_of_least=float(np.min(by_example) / np.min(first)),
                **_speed(implementation, rounds.seconds[name], rounds.products, forward, stated_peak),
            )
        )
    return rows


def _speed(
    function: TimedFunction, seconds: np.ndarray, products: np.ndarray, forward: int, stated_peak: float | None
) -> dict[str, Any]:
    least, operations = float(np.min(seconds)), function.evaluations * function.examples * forward
    quartiles = np.quantile(seconds, (0.25, 0.75))
    return {
        "rounds": len(seconds),
        "min_s": least,
        "median_s": float(np.median(seconds)),
        "quartiles": (float(quartiles[0]), float(quartiles[1])),
        "examples_per_s": function.examples / least,
        "evaluations_per_s": function.evaluations * function.examples / least,
        "model_flops": float(operations),
        "gemm_peak_measured": float(np.max(products)),
        "gemm_spread": float(np.max(products) / np.min(products)),
        "fraction_of_gemm_peak": float(operations / least / np.max(products)),
        "stated_peak": stated_peak,
        "mfu": None if stated_peak is None else operations / least / stated_peak,
    }


def table(rows: Sequence[Row]) -> list[str]:
    """The rows of one comparison as aligned lines."""
    lines = [
        f"{'':32} {'least':>10} {'median':>10} {'ratio':>7} {'ex/s':>10} {'% GEMM':>7} {'compile':>8} {'memory':>9}"
    ]
    for row in rows:
        if row.min_s is None or row.skipped is not None:
            lines.append(f"{row.implementation:32} skipped: {row.skipped}")
            continue
        memory = "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.0f} MiB"
        lines.append(
            f"{row.implementation:32} {_time(row.min_s):>10} {_time(row.median_s):>10} {row.ratio:7.3f} "
            f"{row.examples_per_s:10.4g} {100 * (row.fraction_of_gemm_peak or 0):6.1f}% "
            f"{row.compile_s:6.2f} s {memory:>9}"
        )
    return lines


def _time(seconds: float | None) -> str:
    seconds = seconds or 0.0
    return f"{seconds:.3f} s" if seconds >= 1 else f"{1e3 * seconds:.3f} ms"
