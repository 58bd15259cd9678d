"""Prepare a data set: write it once, as array_record files that tensorflow-datasets reads back without TensorFlow.

It prints what the set holds, and every file of a source that was left out.

digits ships inside scikit-learn. mnist, fashion_mnist, kmnist and emnist/CONFIG are read from the folder --source of
their four idx files. Any other name with a --source is a folder of class folders, SOURCE/CLASS/*.png or
SOURCE/{train,test}/CLASS/*.png. Everything else is downloaded by tensorflow-datasets, which needs TensorFlow for it.
A folder of latents in DATA_DIR needs no preparation: what it holds is printed.
"""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cfgjax import data
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.run import folder as run_folder
from experiments.runtime import progress
from experiments.tasks import summary


@dataclass(frozen=True)
class Options:
    """What to prepare."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """The data set: digits, mnist, fashion_mnist, kmnist, emnist/CONFIG, a name of your own, or one of tfds."""
    source: Annotated[Path | None, optional("FOLDER", "downloaded, or shipped")] = None
    """A local folder to read: idx files, or class folders of pictures."""
    image_size: Annotated[int | None, optional("PIXELS", "as they are")] = None
    """For a folder of pictures: side, in pixels, of the square that each is cut and resized to."""
    on_corrupt: Literal["refuse", "skip"] = "refuse"
    """For a folder of pictures: what to do with one that does not read: end, or leave it out and name it."""
    transpose: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """For idx files: make columns of rows, as those of emnist hold its pictures lying on their side."""
    data_dir: Path = Path("data")
    """Folder of prepared data sets."""


def prepare(options: Options) -> None:
    """Prepares the data set unless it is prepared already."""
    if options.image_size is not None and options.image_size < 1:
        raise UserError(f"image_size must be at least 1, got {options.image_size}")
    is_folder = options.source is not None and not data.is_mnist_like(options.name)
    if not is_folder and (options.image_size is not None or options.on_corrupt != "refuse"):
        raise UserError("image_size and on_corrupt are for a folder of pictures, given as --source")
    if options.transpose and (options.source is None or is_folder):
        raise UserError("transpose is for idx files, whose folder is given as --source")
    run_folder.make_folder("data_dir", options.data_dir)
    if data.is_prepared(options.name, options.data_dir):
        print(f"{options.name} is prepared in {options.data_dir} already")
        summary.tell(options.name, options.data_dir)
        return
    if summary.holds_latents(options.name, options.data_dir):
        summary.tell_latents(options.name, options.data_dir)
        return
    is_local = options.source is not None or options.name == "digits"
    silent = contextlib.redirect_stdout(io.StringIO()) if is_local else contextlib.nullcontext()
    with progress.of_others(), silent:
        remarks = data.prepare(
            options.name, options.data_dir, options.source, options.image_size, options.on_corrupt, options.transpose
        )
    for remark in remarks:
        print(summary.text_of(remark))
    print(f"{options.name} is prepared in {options.data_dir}")
    summary.tell(options.name, options.data_dir)
    if options.name.startswith("emnist/") and not options.transpose:
        cli.warn("warning: emnist's pictures lie on their side: prepare them with --transpose to have them upright")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(prepare, Options, "experiments.prepare", __doc__, args)


if __name__ == "__main__":
    main()
