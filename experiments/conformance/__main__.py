"""Hold other libraries' guiders and samplers against cfgjax.verify.

Each library runs in an environment of its own, which pip makes, from the index that it is set to, below --environments.
Writes OUT/conformance.jsonl, a line for each call, and OUT/conformance.md, the page; rows of libraries that are not run
this time are kept from before.

For example: python -m experiments.conformance --libraries azula torchcfm
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from experiments.cli import main as cli
from experiments.cli.main import EndingError, UserError
from experiments.cli.options import optional
from experiments.conformance.news import changes, unexpected
from experiments.conformance.page import page
from experiments.conformance.processes import chosen, rows_of
from experiments.conformance.records import Row, read_rows, to_json
from experiments.conformance.registry import LIBRARIES
from experiments.run import folder as run_folder

ROWS, PAGE = "conformance.jsonl", "conformance.md"


class NewsError(EndingError):
    """A call whose checks fail otherwise than is known."""

    exit_code = 4


@dataclass(frozen=True)
class Options:
    """Which libraries, where, and against what."""

    libraries: Annotated[tuple[str, ...], optional("NAME [NAME ...]", "all")] = ()
    """Names of the libraries to run."""
    out: Path = Path("runs/conformance")
    """Folder to write to."""
    environments: Path = Path("runs/conformance/environments")
    """Folder of the environments; what is not there yet is made by pip, 3 GB for all."""
    versions: Annotated[tuple[str, ...], optional("NAME=VERSION [NAME=VERSION ...]", "those that are known")] = ()
    """Other versions, or files or folders that pip can install."""
    against: Annotated[Path | None, optional("FILE", "none")] = None
    """The conformance.jsonl of an older run: what changed since is printed."""
    seconds: float = 900.0
    """Time limit of a library, without its installation."""


def _versions(options: Options) -> dict[str, str]:
    found = {}
    for each in options.versions:
        name, _, version = each.partition("=")
        version = version.removeprefix("=")
        if name not in LIBRARIES or not version:
            raise UserError(f"versions must be NAME=VERSION with NAME of {', '.join(LIBRARIES)}, got {each}")
        path = Path(version)
        found[name] = str(path.resolve()) if path.exists() else version
    return found


def _require(options: Options) -> None:
    for name in options.libraries:
        if name not in LIBRARIES:
            raise UserError(f"libraries must be of {', '.join(LIBRARIES)}, got {name}")
    if not options.seconds > 0:
        raise UserError(f"seconds must be positive, got {options.seconds:g}")


def _older(file: Path | None) -> list[Row]:
    if file is None:
        return []
    rows, num_bad = read_rows(file)
    if num_bad or not rows:
        raise UserError(f"against must be the {ROWS} of an older run, got {file}, of which {num_bad} lines are no rows")
    return rows


def conform(options: Options) -> None:
    """Runs the libraries, and writes rows and page."""
    _require(options)
    versions, before = _versions(options), _older(options.against)
    folder, work = (run_folder.make_folder("out", place) for place in (options.out, options.out / "work"))
    places = run_folder.make_folder("environments", options.environments).resolve()
    names = options.libraries or tuple(LIBRARIES)
    kept = read_rows(folder / ROWS)[0] if (folder / ROWS).exists() else []
    rows: list[Row] = []
    for name in names:
        cli.info(f"{name} ...")
        new = rows_of(name, chosen(name, versions.get(name)), places, work.resolve(), options.seconds)
        seconds = sum(row.seconds for row in new)
        cli.print_result(f"{name} {new[0].version}: {len(new)} rows in {seconds:.0f} s")
        rows += new
        everything = [row for row in kept if row.library not in {each.library for each in rows}] + rows
        everything.sort(key=lambda row: list(LIBRARIES).index(row.library))
        run_folder.write_atomically(folder / ROWS, "".join(f"{to_json(row)}\n" for row in everything))
        run_folder.write_atomically(folder / PAGE, page(everything))
    for line in changes(rows, before):
        cli.print_result(line)
    cli.print_result(f"wrote {ROWS} and {PAGE} to {folder}")
    news = list(unexpected(rows))
    for line in news:
        cli.print_result(line)
    if news:
        raise NewsError(f"{len(news)} of {len(rows)} calls are not as they are known to be")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(conform, Options, "experiments.conformance", __doc__, args)


if __name__ == "__main__":
    main()
