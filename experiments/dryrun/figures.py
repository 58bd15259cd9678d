"""A program compiled, and all that is read off it: one record of plain numbers and texts."""

from __future__ import annotations

import re
import time
from typing import Any

from jax.errors import JaxRuntimeError

from experiments.cli.main import UserError
from experiments.dryrun import work
from experiments.dryrun.compiler_log import warnings_of_compiler
from experiments.dryrun.hlo import Program
from experiments.dryrun.programs import Work
from experiments.dryrun.targets import Target


def _source_line(text: str) -> str:
    found = re.search(r'source_file="([^"]+)" source_line=(\d+)', text)
    return f" ({found[1]}:{found[2]})" if found else ""


def lacking(reason: str) -> float | None:
    """The bytes that a device lacks, where that is why a program was refused."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
    found = re.search(
        r"(?:Used|temporaries \() ?([\d.]+)([KMGT])\)? (?:of|exceeds available HBM \() ?([\d.]+)([KMGT])", reason
    )
    return float(found[1]) * units[found[2]] - float(found[3]) * units[found[4]] if found else None


def figures_of(one: Work, target: Target) -> dict[str, Any]:
    """What a device holds and does in one run of a program, as its compiler says.

    Raises:
        UserError: the compiler refuses the program, for another reason than memory.
    """
    start = time.perf_counter()
    found: dict[str, Any] = {"model_flops": one.model_flops, "state_bytes_per_device": one.state_bytes}
    with warnings_of_compiler() as said:
        lowered = one.lower()
        traced = time.perf_counter()
        try:
            compiled, reason = lowered.compile(compiler_options=target.compiler_options), ""
        except JaxRuntimeError as error:
            compiled, reason = None, str(error)
    found |= {"trace_seconds": round(traced - start, 1), "compile_seconds": round(time.perf_counter() - traced, 1)}
    found |= {"warnings": said, "float32_products": work.float32_products(one.trace())}
    if compiled is None:
        missing = lacking(reason)
        if missing is None:
            raise UserError(f"the compiler for {target.name} refuses the program: {reason}{_source_line(reason)}")
        return found | {"lacking_bytes_per_device": missing}
    return found | _memory(compiled, target) | _work(Program(compiled.as_text()), one, target)


def _memory(compiled: Any, target: Target) -> dict[str, Any]:
    sizes = compiled.memory_analysis()
    found = {
        "argument_bytes_per_device": int(sizes.argument_size_in_bytes),
        "temporary_bytes_per_device": int(sizes.temp_size_in_bytes),
        "output_bytes_per_device": int(sizes.output_size_in_bytes - sizes.alias_size_in_bytes),
    }
    return found | {"lacking_bytes_per_device": sum(found.values()) - target.chip.memory}


def _work(program: Program, one: Work, target: Target) -> dict[str, Any]:
    cycles = work.cycles_by_kind(program)
    total = sum(cycles.values())
    found: dict[str, Any] = {
        "collectives": {kind: each._asdict() for kind, each in work.collectives(program).items()},
        "attention": work.attention_of(program)._asdict(),
        "cycles_by_kind": cycles,
        "cycles": total,
    }
    clock = target.chip.clock
    if total and clock is not None:
        seconds = total / clock
        found |= {"seconds_at_clock": seconds, "clock_hz": clock}
        found |= {"share_of_peak": one.model_flops / len(target.devices) / (seconds * target.chip.peak)}
    return found
