"""Say how a file of samples was made: the command line, and of its run a digest of the settings, step and version.

For example: python -m experiments.provenance threes.png
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments.cli import main as cli
from experiments.run.provenance import read


@dataclass(frozen=True)
class Options:
    """What to look at."""

    file: Annotated[Path, tyro.conf.Positional]
    """A .png, .apng, .gif or .npz that experiments.sample wrote."""


def show(options: Options) -> None:
    """Prints the origin of a file."""
    for name, text in read(options.file).items():
        print(f"{name:8s} {cli.plain(text)}")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(show, Options, "experiments.provenance", __doc__, args)


if __name__ == "__main__":
    main()
