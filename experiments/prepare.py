"""Prepare a data set: write it once, as array_record files that tensorflow-datasets reads back.

digits ships inside scikit-learn: nothing is downloaded.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from cfgjax import data
from experiments import command


@dataclass(frozen=True)
class Options:
    """What to prepare."""

    name: Annotated[str, tyro.conf.Positional]
    """The data set: digits."""
    data_dir: Path = Path("data")
    """Folder of prepared data sets."""


def prepare(options: Options) -> None:
    """Prepares the data set unless it is prepared already."""
    if not data.is_prepared(options.name, options.data_dir):
        data.prepare(options.name, options.data_dir)
    print(f"{options.name} is prepared in {options.data_dir}")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    command.run(
        lambda: tyro.cli(Options, prog="python -m experiments.prepare", description=__doc__, args=args), prepare
    )


if __name__ == "__main__":
    main()
