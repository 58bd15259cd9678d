"""Measure every rule of guidance against exact laws: the tilted one and the labelled one.

All rules, by several solvers, paths, guidance scales w and noise strengths sigma, sample mixtures in 2, 16 and 256
dimensions, in one compiled program for each. Written to OUT: ladder.json, a row for each point; ladder.md, the page
with one table; ladder.png, its picture. ``--small`` is a form of a minute, held against stored figures.

For example: python -m experiments.ladder --out runs/ladder --rule my_rule.py
"""

import json
import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from experiments.cli import main as cli
from experiments.cli.main import EndingError, UserError
from experiments.cli.options import optional
from experiments.ladder import stored
from experiments.ladder.climb import Result, Sweep, climb
from experiments.ladder.explorer import page as explorer
from experiments.ladder.explorer import scene
from experiments.ladder.figure import picture
from experiments.ladder.page import page, table
from experiments.ladder.problems import DIMENSIONS
from experiments.ladder.programs import PATHS, Size
from experiments.ladder.rules import ALL, NUM_STEPS, SOLVERS, Row, of_rule
from experiments.ladder.user_rules import load_rule, trouble
from experiments.run import folder as run_folder

WIDE = ("heun", "euler_maruyama")
FULL = Sweep(
    {256: WIDE, 16: WIDE, 2: tuple(SOLVERS)},
    tuple(PATHS),
    (1.0, 1.5, 2.0, 3.0, 5.0),
    (0.5, 1.0, 2.0),
    Size(512, NUM_STEPS),
)
"""By every solver in 2-D, where programs are cheap; in more dimensions by one of the ODE and one of the SDE."""
SMALL = Sweep({16: ("heun",)}, ("linear", "cosine"), (1.0, 2.0, 4.0), (1.0,), Size(256, NUM_STEPS))


class MovedError(EndingError):
    """Figures of the small form that are not the stored ones."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    out: Path = Path("runs/ladder")
    """Folder to write to."""
    page: Annotated[Path | None, optional("FILE.md", "OUT's alone")] = None
    """Another place for the page, with its picture beside it, as docs/ladder.md."""
    small: bool = False
    """16 dimensions, Heun's rule and a minute, held against the stored figures: exit code 1 if a rule's moved."""
    store: bool = False
    """With --small: store its figures in the place of the former ones."""
    rule: Annotated[tuple[Path, ...], optional("FILE.py [FILE.py ...]", "none")] = ()
    """Python files, each with a function rule(path, pair, scale) -> field, to be measured beside the others."""
    only: Annotated[tuple[str, ...], optional("NAME [NAME ...]", "all")] = ()
    """Names of the rules to measure."""
    explorer: Annotated[Path | None, optional("FILE.html", "none")] = None
    """Write to this file, and nothing else, one page with sliders over laws and samples in 2-D; it needs no network.
    Rules that go back in time are left out of it."""


def _table(options: Options) -> dict[str, Row]:
    """The rows to measure: the library's, and the user's that can be."""
    for name in options.only:
        if name not in ALL:
            raise UserError(f"only must be of {', '.join(ALL)}, got {name}")
    rows = {name: row for name, row in ALL.items() if not options.only or name in options.only}
    for file in options.rule:
        rule, name = load_rule(file), file.stem
        if name in rows:
            raise UserError(f"rule must have a name of its own, got {file}")
        why = trouble(rule, DIMENSIONS)
        if why is None:
            rows[name] = of_rule(rule)
        else:
            cli.warn(f"rule {file} is left out: it {why}")
    return rows


def _write(options: Options, result: Result) -> None:
    folder = run_folder.make_folder("out", options.out)
    run_folder.write_atomically(folder / "ladder.json", json.dumps(result.as_json(), indent=1) + "\n")
    machine = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    command = cli.line() or "python -m experiments.ladder"
    for file in filter(None, (folder / "ladder.md", options.page)):
        run_folder.make_folder("page", file.parent)
        run_folder.write_atomically(file, page(result, command, machine, f"{file.stem}.png"))
        picture(result).savefig(file.with_suffix(".png"), dpi=110)
    print(f"wrote ladder.json, ladder.md and ladder.png to {folder}")


def run(options: Options) -> None:
    """Measures, prints and writes."""
    if options.store and (not options.small or options.only or options.rule):
        raise UserError("store must stand beside small alone, as all rules of the library are stored together")
    rows = _table(options)
    if options.explorer is not None:
        of_one_grid = {name: row for name, row in rows.items() if row.refine is None}
        explorer.write(options.explorer, (scene.small if options.small else scene.Scene)(of_one_grid))
        return
    result = climb(rows, SMALL if options.small else FULL)
    cli.print_result(table(result.rows))
    cost = f"{result.compilations} compilations, {result.cpu_seconds:.0f} CPU seconds, {result.seconds:.0f} s"
    print(f"{len(result.rows)} points, {cost}")
    _write(options, result)
    if options.store:
        stored.store(result)
    elif options.small:
        _hold(rows, result)


def _hold(rows: dict[str, Row], result: Result) -> None:
    wanted = {name: figures for name, figures in stored.stored().items() if name in rows}
    own = replace(result, rows=[row for row in result.rows if row.rule in ALL])
    lines = stored.moved(own, wanted, [name for name, row in rows.items() if row.is_population])
    for line in lines:
        cli.warn(line)
    if lines:
        raise MovedError(f"{len(lines)} rules moved")
    print("all figures are the stored ones")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(run, Options, "experiments.ladder", __doc__, args)


if __name__ == "__main__":
    main()
