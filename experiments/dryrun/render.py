"""The figures of programs as text, and their kinds of work as bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.cli.main import UserError
from experiments.dryrun.programs import SAMPLING, TRAINING
from experiments.dryrun.targets import Target
from experiments.dryrun.work import KINDS

SUFFIXES = (".png", ".svg", ".pdf")
GIB, MIB = 2**30, 2**20


def _row(name: str, values: list[str], remark: str = "") -> str:
    return f"  {name:24s}{''.join(f'{value:>14s}' for value in values)}  {remark}".rstrip()


def fit(figures: dict[str, Any]) -> str:
    """Whether a program fits the device, in words."""
    lacking = figures["lacking_bytes_per_device"]
    if lacking is None or lacking == float("-inf"):
        return "-"
    return f"lacks {lacking / GIB:.1f} GiB" if lacking > 0 else "fits"


def _rows_of_memory(found: list[dict[str, Any]], source_bytes: int, device_bytes: float) -> list[str]:
    def row(name: str, key: str, remark: str = "") -> str:
        return _row(name, [f"{each[key] / GIB:.3f}" if key in each else "-" for each in found], remark)

    sources = [f"{source_bytes / GIB:.3f}" for _ in found]
    remark = "" if device_bytes == float("inf") else f"of {device_bytes / GIB:.2f} GiB that a program may take"
    return [
        row("state", "state_bytes_per_device", "parameters, optimizer, EMA in training; parameters in sampling"),
        _row("data", sources),
        row("arguments", "argument_bytes_per_device", "both, and the batch, as they lie in memory"),
        row("temporary", "temporary_bytes_per_device"),
        _row("on a device", [fit(each) for each in found], remark),
    ]


def _rows_of_cycles(found: list[dict[str, Any]]) -> list[str]:
    if not any(each.get("cycles") for each in found):
        return []
    rows = [_row("estimated cycles", [f"{each.get('cycles', 0) / 1e6:.2f} M" for each in found], "loops counted")]
    for kind in KINDS:
        shares = [each.get("cycles_by_kind", {}).get(kind, 0) / max(1, each.get("cycles", 0)) for each in found]
        rows.append(_row(f"  {kind}", [f"{share:.1%}" for share in shares]))
    clock = found[0]["clock_hz"] / 1e9
    seconds = [f"{1e3 * each['seconds_at_clock']:.1f} ms" for each in found]
    rows.append(_row(f"at {clock:.2f} GHz", seconds, "an estimate, without the waits for collectives"))
    peaks = [f"{each['share_of_peak']:.1%}" for each in found]
    return [*rows, _row("share of the peak", peaks, "the model's FLOPs over the chip's in that time")]


def _rows_of_attention(found: list[dict[str, Any]]) -> list[str]:
    names = {"flash": "flash kernels", "flash_backward": "  of gradients", "plain": "softmax operations"}
    return [_row(name, [str(each.get("attention", {}).get(key, "-")) for each in found]) for key, name in names.items()]


def _rows_of_collectives(found: list[dict[str, Any]]) -> list[str]:
    kinds = sorted({kind for each in found for kind in each.get("collectives", {})})
    rows = []
    for kind in kinds:
        those = [each.get("collectives", {}).get(kind) for each in found]
        rows.append(_row(kind, [f"{one['bytes'] / MIB:.1f} MiB" if one else "-" for one in those]))
        counts = [f"{one['asynchronous']} of {one['count']}" if one else "-" for one in those]
        rows.append(_row("  asynchronous", counts))
    return rows


def _lines_of_precision(figures: dict[str, Any], limit: int = 8) -> list[str]:
    products = figures["float32_products"]
    if not products:
        return []
    lines = [
        f"  {each['flops'] / 1e9:10.3f} GFLOP  {each['count']:3d} x  {each['source']}" for each in products[:limit]
    ]
    more = [f"  and {len(products) - limit} lines more"] if len(products) > limit else []
    return ["products of float32 numbers, over all devices:", *lines, *more]


def programs_of(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures of each program by its name."""
    return {name: found[name] for name in (*TRAINING, *SAMPLING) if name in found}


def text(found: dict[str, Any]) -> str:
    """The figures as a table with a column for each program."""
    names, those = list(programs_of(found)), list(programs_of(found).values())
    what = "guided samples" if set(names) & set(SAMPLING) else "examples"
    warnings = dict.fromkeys(warning for each in those for warning in each["warnings"])
    flops = [f"{each['model_flops'] / 1e12:.3f}" for each in those]
    return "\n".join(
        [
            f"{found['preset']}: {found['batch_size']} {what} on {found['num_devices']} x {found['device_kind']}"
            f" ({found['on']})",
            f"  parameters  {found['num_params'] / 1e6:.1f} M",
            f"  forward     {found['forward_flops_per_example'] / 1e9:.3f} GFLOP an example",
            _row("GiB on each device", names),
            *_rows_of_memory(those, found["source_bytes_per_device"], found["memory_bytes_per_device"]),
            "one run",
            _row("TFLOP of the network", flops, "on all devices; in training 3 x forward x examples"),
            *_rows_of_attention(those),
            *(["sent and received by a device", *rows] if (rows := _rows_of_collectives(those)) else []),
            *(["work", *rows] if (rows := _rows_of_cycles(those)) else []),
            *_lines_of_precision(those[0]),
            _row("seconds to trace", [f"{each['trace_seconds']:.1f}" for each in those]),
            _row("seconds to compile", [f"{each['compile_seconds']:.1f}" for each in those]),
            *(f"the compiler warns: {warning}" for warning in warnings),
        ]
    )


def require_picture(path: Path, target: Target) -> None:
    """Raises UserError for a file of another kind than a picture's, or for devices without estimates of cycles."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"out must end in one of {', '.join(SUFFIXES)}, got {path}")
    if target.chip.clock is None:
        raise UserError(f"out must be left out for {target.name}, whose compiler estimates no cycles")


def bars(found: dict[str, Any], path: Path) -> None:
    """Writes a bar of each program's kinds of work, in millions of estimated cycles."""
    from matplotlib.figure import Figure

    programs = {name: each["cycles_by_kind"] for name, each in programs_of(found).items() if each.get("cycles")}
    figure = Figure(figsize=(8, 1.4 + 0.6 * len(programs)), layout="constrained")
    axes = figure.subplots()
    starts = dict.fromkeys(programs, 0.0)
    for index, kind in enumerate(KINDS):
        sizes = {name: kinds[kind] / 1e6 for name, kinds in programs.items()}
        axes.barh(list(sizes), list(sizes.values()), left=list(starts.values()), label=kind, color=f"C{index}")
        starts = {name: starts[name] + size for name, size in sizes.items()}
    axes.invert_yaxis()
    axes.set(xlabel="estimated cycles on a device, millions", title=f"{found['preset']} on {found['on']}")
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
