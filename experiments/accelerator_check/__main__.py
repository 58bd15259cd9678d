"""Check the library on an accelerator that is there for minutes: its numbers against the CPU's, then its speed.

Each check is a row of OUT/rows.jsonl as soon as it is done, and OUT/page.md is made anew, so that a run that is cut off
keeps what it has. In this order: the machine and its versions; fields, guided samples, gradients and training steps of
small networks against the CPU's float32; attention in bfloat16 against plain products; the same bits twice, and nothing
compiled anew; a product of matrices, training and guided sampling beside it; PyTorch, where it is installed; the
largest batch that fits. A check that fails is a row with its error, and the rest goes on; none is begun once the
minutes are up, and one that is begun is finished.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.accelerator_check import (
    against_cpu,
    attention,
    beside_torch,
    checks,
    device,
    page,
    repeats,
    rows,
    sizes,
    throughput,
)
from experiments.accelerator_check.checks import Budget, Check
from experiments.accelerator_check.rows import Row
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.config.values import AnyPath, Positive
from experiments.run import folder as run_folder


@dataclass(frozen=True)
class Options:
    """What to check, and for how long."""

    out: AnyPath = Path("runs/accelerator_check")
    """Folder of rows.jsonl and page.md; one that holds no rows yet."""
    minutes: Positive = 7.0
    """Minutes after which no check is begun."""
    small: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Check tiny networks, on any device, the CPU too: a try of the command itself, whose speeds say nothing."""


def checks_of(size: sizes.Sizes, budget: Budget) -> list[Check]:
    """All checks in their order."""
    found = throughput.Found()
    return [
        Check(page.MACHINE, "the machine", device.describe),
        *against_cpu.checks_of(size),
        *attention.checks_of(size),
        *repeats.checks_of(size),
        *throughput.checks_of(size, found),
        *beside_torch.checks_of(size, found),
        *throughput.last_checks_of(size, found, budget),
    ]


def _folder(options: Options) -> Path:
    """The folder, without rows.

    Raises:
        UserError: it holds rows already, or cannot be made or written.
    """
    folder = run_folder.make_folder("out", options.out)
    if (folder / rows.NAME).exists():
        raise UserError(f"out {folder} holds the rows of a check already; name another folder")
    return folder


def check(options: Options) -> list[Row]:
    """All rows, printed and written as they come.

    Raises:
        UserError: an option out of range, no accelerator for the full form, or a folder that cannot be used.
    """
    budget = Budget(run_folder.validate(options).minutes)
    device.require_usable(needs_accelerator=not options.small)
    folder = _folder(options)
    found = []
    for row in checks.run(checks_of(sizes.SMALL if options.small else sizes.FULL, budget), budget):
        rows.append(folder / rows.NAME, row)
        file = page.write(folder)
        cli.print_result(f"{budget.seconds():5.0f} s  {rows.line(row)}")
        found.append(row)
    print(f"{rows.summary(found)}; wrote {folder / rows.NAME} and {file}")
    return found


def main(args: list[str] | None = None) -> None:
    """The command line."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch shares the device
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.92")  # and the largest batch shall find nearly all of it
    cli.main(check, Options, "experiments.accelerator_check", __doc__, args)


if __name__ == "__main__":
    main()
