"""Data sets in forms that are not read here: what their files are, for a message that says the way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_IDX = re.compile(r"idx\d-(ubyte|int)(\.gz)?$")
_FORMS = {
    ".npz": "NumPy's arrays",
    ".npy": "a NumPy array",
    ".mat": "MATLAB's arrays",
    ".bin": "bare bytes",
    ".pkl": "a pickle",
    ".pickle": "a pickle",
    ".pt": "a pickle of PyTorch",
    ".arrow": "a table of Arrow",
    ".h5": "HDF5",
    ".hdf5": "HDF5",
    ".tfrecord": "records of TensorFlow",
    ".csv": "a table",
    ".tar": "an archive",
    ".tgz": "an archive",
    ".gz": "an archive",
    ".bz2": "an archive",
    ".xz": "an archive",
    ".7z": "an archive",
    ".zip": "an archive",
}


def _form_of(file: Path) -> str | None:
    if _IDX.search(file.name):
        return "idx, read under the names mnist, fashion_mnist, kmnist and emnist/CONFIG alone"
    return _FORMS.get(file.suffix.lower())


def told_forms(files: Sequence[Path]) -> str:
    """What the first file is that has a form of data sets, and that class folders of pictures are the way; or nothing.

    >>> told_forms([Path("notes.txt"), Path("train_32x32.mat")])
    ", but train_32x32.mat (MATLAB's arrays): write its pictures as SOURCE/CLASS/0.png and so on"
    """
    for file in files:
        if file.name == "latents.npy":
            return ", but latents.npy: latents are read from a folder of latents.npy and labels.npy"
        if file.suffix.lower() == ".parquet":
            return f", but {file.name}: pictures in Parquet are read by data.read_parquet"
        if file.name in ("metadata.csv", "metadata.jsonl"):
            return f", but {file.name}: pictures with metadata are read by data.read_metadata_folder"
        form = _form_of(file)
        if form is not None:
            return f", but {file.name} ({form}): write its pictures as SOURCE/CLASS/0.png and so on"
    return ""
