"""A folder of latents, as ``data.open_latents`` reads it, written a block of rows at a time."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from cfgjax import data
from cfgjax.data.latents import FILES
from experiments.cli.main import UserError
from experiments.runtime import progress


def write(folder: Path, count: int, blocks: Iterable[data.Views], labels: np.ndarray) -> None:
    """Writes latents, labels and their statistics into a folder, which is made if it is not there.

    Args:
        folder: to be written.
        count: rows in all.
        blocks: what is stored of their rows, in order, all of them of the same parts.
        labels: [count].

    Raises:
        DataError: numbers that are not finite, or deviations below 0, by their row.
        UserError: the disk has no room for them.
    """
    folder.mkdir(exist_ok=True)
    for start, block in _at_their_rows(blocks):
        if start == 0:
            _require_room(folder, count, block)
        for name, values in zip(FILES, block, strict=True):
            if values is None:
                continue
            if start == 0:
                np.lib.format.open_memmap(folder / name, "w+", np.float32, (count, *values.shape[1:]))
            file = np.lib.format.open_memmap(folder / name, "r+")
            file[start : start + len(values)] = values
    np.save(folder / "labels.npy", labels.astype(np.int32))
    data.write_statistics(folder, data.open_latents(folder).statistics())


def _require_room(folder: Path, count: int, block: data.Views) -> None:
    """Raises UserError where the disk has no room; a mapped file that finds none ends the process."""
    needed = sum(4 * count * values[0].size for values in block if values is not None)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(f"{folder.parent} has {free / 1e9:.1f} GB free, and the latents take {needed / 1e9:.1f} GB")


def _at_their_rows(blocks: Iterable[data.Views]) -> Iterator[tuple[int, data.Views]]:
    start = 0
    for block in blocks:
        yield start, block
        start += len(block.latent)


def convert(name: str, data_dir: Path, source: data.LatentSource) -> None:
    """Writes data_dir/name, whole or not at all, of latents that others wrote.

    Raises:
        DataError: latents that do not read.
        UserError: the folder holds something else.
    """
    folder = data_dir / name
    if folder.exists() and any(data.require_inside(folder, data_dir).iterdir()):
        raise UserError(f"{folder} holds something else; remove it, or give another name")
    draft = folder.with_name(f".{name}.converting")
    shutil.rmtree(draft, ignore_errors=True)  # of a conversion that was killed
    try:
        write(draft, source.count, _shown(source), source.label)
        draft.replace(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _shown(source: data.LatentSource) -> Iterator[data.Views]:
    """The blocks of a source, with a bar."""
    with progress.bar(source.count, "latents", "converting") as shown:
        for block in source.blocks():
            yield block
            shown.update(len(block.latent))
