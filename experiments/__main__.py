"""The list of all commands, with a line on each: python -m experiments."""

import ast
import sys
from pathlib import Path

from experiments.cli import broken_pipe

_HERE = Path(__file__).parent
KINDS = {
    "From data to figures": (
        "presets",
        "prepare",
        "train",
        "sample",
        "provenance",
        "evaluate",
        "report",
        "convert_weights",
        "encode",
    ),
    "The laboratory": (
        "gallery",
        "notebooks",
        "guided_distributions",
        "learn_schedule",
        "diagnose",
        "solver_error",
        "solve_inverse",
        "ladder",
        "ladder_posterior",
        "many_classes",
        "fewer_evaluations",
        "drop_rates",
        "conformance",
    ),
    "Machines": (
        "dryrun",
        "dryrun.write_page",
        "accelerator_check",
        "benchmark",
        "benchmark.write_page",
        "benchmark.scaling",
        "benchmark.decoding",
        "fault_injection",
        "endurance",
    ),
}
_OTHERS = "Others"
_USAGE = "usage: python -m experiments.COMMAND, for example python -m experiments.train --help"
_RUNS = '\nif __name__ == "__main__":\n    main()'


def _line(source: Path) -> str | None:
    """What a command does, as its own description begins; None for a module that is no command."""
    text = source.read_text()
    first = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    return first.partition(":")[0].rstrip(".") if _RUNS in text else None


def commands() -> dict[str, str]:
    """What every command does, in one line, by its name."""
    found = {}
    for source in sorted(_HERE.rglob("*.py")):
        name = ".".join(source.relative_to(_HERE).with_suffix("").parts).removesuffix(".__main__")
        line = None if source == Path(__file__) else _line(source)
        if line is not None:
            found[name] = line
    return found


def page() -> str:
    """The commands by kind; those of no kind come last."""
    found = commands()
    known = [name for names in KINDS.values() for name in names]
    others = tuple(name for name in found if name not in known)
    width, blocks = max(map(len, found)), []
    for kind, names in (KINDS | ({_OTHERS: others} if others else {})).items():
        rows = [f"  {name:{width}s} {found[name]}" for name in names if name in found]
        blocks.append("\n".join([f"{kind}:", *rows]))
    return "\n\n".join([_USAGE, *blocks])


@broken_pipe.tolerate_broken_pipe()
def main(args: list[str] | None = None) -> None:
    """Prints the list."""
    asked = [each for each in (sys.argv[1:] if args is None else args) if each not in ("-h", "--help")]
    if asked:
        hint = f"say python -m experiments.{asked[0]}" if asked[0] in commands() else "say python -m experiments"
        sys.stderr.write(f"error: a command is named with a dot: {hint}\n")
        raise SystemExit(2)
    print(page())


if __name__ == "__main__":
    main()
