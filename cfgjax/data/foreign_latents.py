"""Latents that other projects wrote: which kind of them a folder or a file holds, and its reader."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

from cfgjax.contracts import PathLike, checked, one_of
from cfgjax.data import latent_arrays, latent_shards, mean_std_latents
from cfgjax.data.latent_source import Axes, LatentSource
from cfgjax.data.untrusted import DataError

_PICKLES = {".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_OF_REPA = "vae-sd"
"""The folder of latents in REPA's, beside that of pictures."""


def _refuse_pickles(place: Path) -> None:
    """Raises DataError for a pickle, or a folder of nothing else."""
    files = [place] if place.is_file() else [file for file in sorted(place.iterdir()) if not file.name.startswith(".")]
    if files and all(file.suffix in _PICKLES for file in files):
        raise DataError(
            f"{files[0]} is a pickle, which can run code and is never read. If you trust it, let PyTorch convert it: "
            "z = torch.load(file, weights_only=True); np.savez('latents.npz', latents=z['latents'].float().numpy(), "
            "labels=z['labels'].numpy())"
        )


def _mean_std_place(place: Path) -> Path | None:
    """The folder, or the zip, of a file for each picture; None where there is none."""
    if place.is_file():
        return place if place.suffix == ".zip" and mean_std_latents.is_there(place) else None
    return next((each for each in (place, place / _OF_REPA) if each.is_dir() and mean_std_latents.is_there(each)), None)


def _kind_of(place: Path) -> str | None:
    if _mean_std_place(place) is not None:
        return "mean and deviation"
    if place.is_file() and place.suffix == ".npz":
        return "archive" if latent_arrays.is_archive(place) else None
    if place.is_file():
        return "shards" if place.suffix == ".safetensors" else None
    if latent_shards.shards_of(place):
        return "shards"
    if latent_arrays.pair_in(place) is not None:
        return "pair"
    return "pairs" if latent_arrays.folders_of_pairs(place) is not None else None


@checked
def holds_foreign_latents(place: PathLike) -> bool:
    """Whether a folder or a file looks like latents that ``read_foreign_latents`` reads.

    Raises:
        DataError: a pickle, or a zip that does not read.
    """
    place = Path(place)
    if not place.exists():
        return False
    _refuse_pickles(place)
    return _kind_of(place) is not None


@checked
def read_foreign_latents(
    place: PathLike,
    kind: Annotated[str, one_of("repa", "edm2")] | None = None,
    axes: Annotated[str, one_of("nhwc", "nchw")] | None = None,
) -> LatentSource:
    """The latents in a folder or a file that others wrote.

    Args:
        place: a folder, or a zip, of 00000/img-mean-std-00000000.npy and dataset.json; a folder of .safetensors with
            latents, labels and maybe latents_flip, or one of them; an .npz of latents, x or arr_0 and labels or y; a
            folder of latents.npy and labels.npy; or one of NAME_features/0.npy and NAME_labels/0.npy.
        kind: of the first, whose means tell pictures on [-1, 1] (repa) from those on [0, 1] (edm2) where they can.
        axes: of .npz and .npy, which do not tell; by default channels last.

    Raises:
        DataError: other files, or files that do not read or do not fit each other.
    """
    place = Path(place)
    found = _kind_of(place)
    if found != "mean and deviation" and kind is not None:
        raise DataError(f"kind is for files img-mean-std-00000000.npy alone, which {place} does not hold")
    if found not in ("archive", "pair") and axes is not None:
        raise DataError(f"axes is for .npz and .npy alone; those of {place} are known")
    if found == "mean and deviation":
        return mean_std_latents.read(_mean_std_place(place) or place, cast(mean_std_latents.Kind | None, kind))
    if found == "shards":
        return latent_shards.read(place)
    order = cast(Axes | None, axes)
    if found == "archive":
        return latent_arrays.read_archive(place, order)
    if found == "pair" and (pair := latent_arrays.pair_in(place)) is not None:
        return latent_arrays.read_pair(*pair, order)
    if found == "pairs" and (folders := latent_arrays.folders_of_pairs(place)) is not None:
        return latent_arrays.read_pairs(*folders)
    raise DataError(f"{place} holds no latents of a form that is read")
