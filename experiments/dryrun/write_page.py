"""Write a page of dry runs: docs/accelerators.md, of what ``experiments.dryrun --json`` printed, one record a line."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.dryrun.page import page
from experiments.dryrun.render import programs_of
from experiments.dryrun.targets import chip_of
from experiments.run import folder as run_folder

NEEDED = {"preset", "size", "on", "date", "versions", "command", "num_devices", "batch_size"}


@dataclass(frozen=True)
class Options:
    """Where the records are."""

    records: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="FILE [FILE ...]", help_behavior_hint="(required)"),
    ]
    """Files of what --json printed, a line for each record."""
    out: Path = Path("docs/accelerators.md")
    """The page."""


def _is_record(record: Any) -> bool:
    if not isinstance(record, dict) or not record.keys() >= NEEDED or not programs_of(record):
        return False
    try:
        chip_of(record["on"])
    except KeyError:
        return False
    return True


def _record(line: str) -> dict[str, Any] | None:
    """The record of a line, or None."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if _is_record(record) else None


def _read(paths: tuple[Path, ...]) -> list[dict[str, Any]]:
    """The records of some files.

    Raises:
        UserError: a line that is no record.
    """
    records = []
    for path in paths:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            record = _record(line)
            if record is None:
                raise UserError(f"{path}:{number} is no record of experiments.dryrun --on TPUs or GPUs --json")
            records.append(record)
    if not records:
        raise UserError("records must hold at least one line")
    return records


def _write(options: Options) -> None:
    text = page(_read(options.records))
    run_folder.make_folder("out", options.out.parent)
    run_folder.write_atomically(options.out, text)
    cli.print_result(f"wrote {options.out}")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(_write, Options, "experiments.dryrun.write_page", __doc__, args)


if __name__ == "__main__":
    main()
