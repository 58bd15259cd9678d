"""List the presets: what each is, what it needs, and what it reaches.

For example: python -m experiments.presets digits mixture
"""

import shutil
from dataclasses import dataclass
from typing import Annotated

import tyro

from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.presets import requirements
from experiments.presets.registry import PRESETS


@dataclass(frozen=True)
class Options:
    """Which presets."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, optional("NAME", "all")] = ()
    """Names of presets."""


def show(options: Options) -> None:
    """Prints what each preset needs and reaches."""
    for name in options.names:
        if name not in PRESETS:
            raise UserError(f"names must be of {', '.join(PRESETS)}, got {name}")
    width = shutil.get_terminal_size().columns
    shown = [requirements.text(name, PRESETS[name][0], width) for name in options.names or PRESETS]
    print("\n\n".join([*shown, requirements.LEGEND]))


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(show, Options, "experiments.presets", __doc__, args)


if __name__ == "__main__":
    main()
