"""The MNIST family from local idx files, as the tfds data sets of the same names, without TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np

from cfgjax.contracts import checked
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.idx import read_idx
from cfgjax.data.untrusted.image_decoding import encode_png
from cfgjax.data.untrusted.safe_files import require_inside

FAMILY = ("mnist", "fashion_mnist", "kmnist", "emnist")
TRANSPOSED = "Prepared with rows and columns of its pictures exchanged."


@checked
def is_mnist_like(name: str) -> bool:
    """Whether a data set, or the one of which it is a configuration, is distributed as idx files."""
    return name.partition("/")[0] in FAMILY


def _find(folder: Path, stem: str) -> Path:
    """The file of a name, packed or plain, in either spelling: the original one has a dot, train-images.idx3-ubyte."""
    for name in (f"{each}{suffix}" for each in (stem, stem.replace("-idx", ".idx")) for suffix in (".gz", "")):
        if (folder / name).exists() and not (folder / name).is_dir():
            return require_inside(folder / name, folder)
    raise DataError(f"source {folder} holds no {stem}.gz")


def _read_split(folder: Path, prefix: str, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = (read_idx(_find(folder, f"{prefix}-{kind}-ubyte")) for kind in ("images-idx3", "labels-idx1"))
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataError(f"source {folder}: images {images.shape} and labels {labels.shape} of {prefix} do not match")
    if images.size == 0:
        raise DataError(f"source {folder}: {prefix} holds no images")
    if labels.max() >= num_classes:
        raise DataError(f"source {folder}: {prefix} has label {labels.max()}, of 0..{num_classes - 1}")
    return images, labels


def idx_builder(name: str, source: Path, data_dir: Path, transpose: bool = False) -> Any:
    """The builder of a data set of the family, reading the four idx files in a folder.

    Args:
        name: mnist, fashion_mnist, kmnist, or emnist/CONFIG.
        source: the folder of train-images-idx3-ubyte.gz and so on (emnist-CONFIG-train-... for emnist).
        data_dir: where to write.
        transpose: whether rows become columns; the set's description says it.

    Raises:
        DataError: files that are missing or wrong.
    """
    import tensorflow_datasets as tfds

    family, _, config = name.partition("/")
    registered = cast(Any, tfds.builder_cls(family))
    prefixes = (f"emnist-{config}-train", f"emnist-{config}-test") if config else ("train", "t10k")

    with tfds.core.registered.skip_registration():

        class FromFiles(registered):
            """The registered builder, with local files in the place of the download."""

            name = family

            def _info(self) -> tfds.core.DatasetInfo:
                info = super()._info()
                if transpose:
                    info.as_proto.description += f"\n{TRANSPOSED}"
                return info

            def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
                splits = zip(("train", "test"), splits_read, strict=True)
                return {split: self._generate_examples(*arrays) for split, arrays in splits}

            def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Iterator[tuple[int, dict]]:
                for index, (image, label) in enumerate(zip(images, labels, strict=True)):
                    yield index, {"image": encode_png(image[..., np.newaxis]), "label": int(label)}

    builder = FromFiles(data_dir=str(data_dir), file_format="array_record", **({"config": config} if config else {}))
    num_classes = builder.info.features["label"].num_classes
    splits_read = [_read_split(source, prefix, num_classes) for prefix in prefixes]
    if transpose:
        splits_read = [(images.swapaxes(1, 2), labels) for images, labels in splits_read]
    return builder
