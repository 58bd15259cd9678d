"""Prepare a data set: write it once, as array_record files that tensorflow-datasets reads back without TensorFlow.

It prints what the set holds, and every file of a source that was left out.

digits ships inside scikit-learn. mnist, fashion_mnist, kmnist and emnist/CONFIG are read from the folder --source of
their four idx files. Any other name with a --source is a folder of class folders, SOURCE/CLASS/*.png or
SOURCE/{train,test}/CLASS/*.png; or pictures with texts or numbers: a folder with metadata.jsonl or metadata.csv, a
.parquet file or a folder of these, which becomes DATA_DIR/NAME/{train,test}/*.png with a metadata.jsonl each; or
latents that REPA, EDM2, LightningDiT or fast-DiT wrote, or an .npz of latents and labels, which becomes
DATA_DIR/NAME/latents.npy and so on.
Everything else is downloaded by tensorflow-datasets, which needs TensorFlow for it. A folder of latents, or of pictures
with metadata, in DATA_DIR needs no preparation: what it holds is printed.
"""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cfgjax import data
from experiments.cli import main as cli
from experiments.cli.main import UserError, plain
from experiments.cli.options import optional
from experiments.run import folder as run_folder
from experiments.runtime import progress
from experiments.tasks import latent_folder, picture_folder, summary


@dataclass(frozen=True)
class Options:
    """What to prepare."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """The data set: digits, mnist, fashion_mnist, kmnist, emnist/CONFIG, a name of your own, or one of tfds."""
    source: Annotated[Path | None, optional("FOLDER", "downloaded, or shipped")] = None
    """What to read: a folder of idx files, class folders, pictures with metadata or latents; a .parquet, .zip, .npz."""
    image_size: Annotated[int | None, optional("PIXELS", "as they are")] = None
    """For a folder of pictures: side, in pixels, of the square that each is cut and resized to."""
    on_corrupt: Literal["refuse", "skip"] = "refuse"
    """For a folder of pictures: what to do with one that does not read: end, or leave it out and name it."""
    columns: Annotated[tuple[str, ...] | None, optional("COLUMN [COLUMN ...]", "all")] = None
    """For pictures with metadata: which columns to keep."""
    embeddings: Annotated[Path | None, optional("FILE", "none")] = None
    """For pictures with metadata: stored embeddings, .npz or .safetensors, by file_name or in the order of the rows."""
    transpose: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """For idx files: make columns of rows, as those of emnist hold its pictures lying on their side."""
    kind: Annotated[Literal["repa", "edm2"] | None, optional("{repa,edm2}", "by their means")] = None
    """For latents in img-mean-std-00000000.npy: who wrote them, of pictures in [-1, 1] (repa) or in [0, 1] (edm2)."""
    axes: Annotated[Literal["nhwc", "nchw"] | None, optional("{nhwc,nchw}", "nhwc")] = None
    """For latents in .npz or .npy: whether channels are the last axis or the second."""
    data_dir: Path = Path("data")
    """Folder of prepared data sets."""


def _is_of_latents(options: Options) -> bool:
    """Whether the source holds latents."""
    source = options.source
    is_shipped = options.name == "digits" or data.is_mnist_like(options.name)
    if source is None or is_shipped or picture_folder.reader_of(source) is not None:
        return False
    return data.holds_foreign_latents(source)


def _require_latents_alone(options: Options) -> None:
    """Raises UserError for options of pictures."""
    named = {"image_size": None, "on_corrupt": "refuse", "columns": None, "embeddings": None, "transpose": False}
    for name, default in named.items():
        if getattr(options, name) != default:
            raise UserError(f"{name} is for pictures, and source {options.source} holds latents")


def _require_usable(options: Options) -> None:
    """Raises UserError for options that are of another kind of source."""
    if _is_of_latents(options):
        _require_latents_alone(options)
        return
    if options.kind is not None or options.axes is not None:
        raise UserError("kind and axes are for latents, which the source does not hold")
    if options.image_size is not None and options.image_size < 1:
        raise UserError(f"image_size must be at least 1, got {options.image_size}")
    is_folder = options.source is not None and not data.is_mnist_like(options.name)
    has_metadata = options.source is not None and is_folder and picture_folder.reader_of(options.source) is not None
    if not is_folder and (options.image_size is not None or options.on_corrupt != "refuse"):
        raise UserError("image_size and on_corrupt are for a folder of pictures, given as --source")
    if has_metadata and options.on_corrupt != "refuse":
        raise UserError("on_corrupt is for class folders; of pictures with metadata each must read")
    if not has_metadata and (options.columns is not None or options.embeddings is not None):
        raise UserError("columns and embeddings are for a --source with metadata.csv, metadata.jsonl or .parquet")
    if options.transpose and (options.source is None or is_folder):
        raise UserError("transpose is for idx files, whose folder is given as --source")


def _is_told(options: Options) -> bool:
    """Whether the data set is there already, and what it holds printed."""
    name, data_dir = options.name, options.data_dir
    unread = "" if options.source is None else f"; the source is not read again, unless {data_dir / name} is removed"
    if data.is_prepared(name, data_dir):
        print(f"{name} is prepared in {data_dir} already{unread}")
        summary.tell(name, data_dir)
    elif summary.holds_latents(name, data_dir):
        summary.tell_latents(name, data_dir)
        if options.source is not None:
            print(f"  {data_dir / name} is there already{unread}")
    elif picture_folder.is_there(name, data_dir):
        print(f"{name} in {data_dir} holds pictures with metadata already{unread}")
        picture_folder.tell(name, data_dir)
    else:
        return False
    return True


def _write(options: Options) -> list[data.Remark]:
    """Writes the data set, and returns what is to be told of the source's files."""
    name, data_dir, source, size = options.name, options.data_dir, options.source, options.image_size
    if source is not None and not data.is_mnist_like(name) and picture_folder.reader_of(source) is not None:
        return picture_folder.write(name, data_dir, source, size, options.columns, options.embeddings)
    is_local = source is not None or name == "digits"
    silent = contextlib.redirect_stdout(io.StringIO()) if is_local else contextlib.nullcontext()
    with progress.of_others(), silent:
        return data.prepare(name, data_dir, source, size, options.on_corrupt, options.transpose)


def _convert(options: Options, source: Path) -> None:
    """Writes a folder of latents, and tells what it holds."""
    found = data.read_foreign_latents(source, options.kind, options.axes)
    for remark in found.remarks:
        print(plain(remark))
    latent_folder.convert(options.name, options.data_dir, found)
    summary.tell_latents(options.name, options.data_dir)


def prepare(options: Options) -> None:
    """Prepares the data set unless it is prepared already."""
    _require_usable(options)
    run_folder.make_folder("data_dir", options.data_dir)
    if _is_told(options):
        return
    if options.source is not None and _is_of_latents(options):
        _convert(options, options.source)
        return
    for remark in _write(options):
        print(summary.text_of(remark))
    print(f"{options.name} is prepared in {options.data_dir}")
    if picture_folder.is_there(options.name, options.data_dir):
        picture_folder.tell(options.name, options.data_dir)
        return
    summary.tell(options.name, options.data_dir)
    if options.name.startswith("emnist/") and not options.transpose:
        cli.warn("warning: emnist's pictures lie on their side: prepare them with --transpose to have them upright")


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(prepare, Options, "experiments.prepare", __doc__, args)


if __name__ == "__main__":
    main()
