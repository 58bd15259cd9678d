"""Small data sets that look like the real ones: written by the tests, read by the library."""

import gzip
import struct

import numpy as np

NUM_CLASSES = 10


def stripes(num_images, seed):
    """Images [n, 28, 28] uint8 whose bright row tells the label, and the labels [n], every label as often."""
    generator = np.random.default_rng(seed)
    labels = np.arange(num_images) % NUM_CLASSES
    images = generator.integers(0, 60, size=(num_images, 28, 28))
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 2 : 2 * label + 6] += 180
    return images.astype(np.uint8), labels.astype(np.uint8)


def idx_bytes(array):
    """The content of an idx file of unsigned bytes."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx(folder, prefix, images, labels):
    """Writes a split's two files, in gzip."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        (folder / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(idx_bytes(array)))


def write_family(folder, num_train=320, num_test=160):
    """Writes the four idx files of a small set with the form of MNIST's."""
    write_idx(folder, "train", *stripes(num_train, 0))
    write_idx(folder, "t10k", *stripes(num_test, 1))
    return folder
