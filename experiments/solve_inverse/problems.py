"""What is measured of held-out pictures: part of their pixels, means of squares of them, or a blur, and noise."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cfgjax import data, steering
from cfgjax.data.untrusted.image_decoding import unpack
from cfgjax.data.untrusted.npy import open_array
from cfgjax.steering import operators
from cfgjax.types import Array, LinearOperator, Measurement
from experiments.cli.main import UserError
from experiments.run.batch_sampling import sample_keys

MASKS = ".png", ".npy"
_MOST_BYTES, _WHITE = 2**24, 128
_FACTOR, _KERNEL_SIZE, _KERNEL_STD = 2, 5, 1.0
_NOISE = 0x31
"""Folded into a picture's key, for the noise of its measurement."""

Shape = tuple[int, ...]


class Problems(NamedTuple):
    """Held-out pictures, and what is known of them.

    Attributes:
        operator: A, the same for all pictures.
        truth: the pictures, [n, H, W, C] in [-1, 1].
        label: their labels, [n].
        value: A z + noise, [n, *M]; 0 where nothing is measured.
        noise_std: of the noise, in the units of the truth.
    """

    operator: LinearOperator
    truth: np.ndarray
    label: np.ndarray
    value: np.ndarray
    noise_std: float

    @property
    def is_measured(self) -> np.ndarray:
        """Which numbers of a value depend on a picture at all, [*M]."""
        return np.asarray(measured(self.operator, self.truth.shape[1:]))

    def of(self, value: Array) -> Measurement:
        """The measurement of one picture."""
        return Measurement(self.operator, value, self.noise_std)


def measured(operator: LinearOperator, shape: Shape) -> Array:
    """Which numbers of a value depend on a picture at all, [*M], for operators without cancelling entries."""
    return operator(jnp.ones(shape)) != 0


def _centre(shape: Shape) -> np.ndarray:
    """The mask of a picture whose central square, of half its sides, is missing."""
    known = np.ones(shape)
    top, left = (side // 4 for side in shape[:2])
    known[top : shape[0] - top, left : shape[1] - left] = 0
    return known


def _kernel() -> np.ndarray:
    """A Gaussian of few pixels, of sum 1."""
    line = np.exp(-0.5 * np.square((np.arange(_KERNEL_SIZE) - _KERNEL_SIZE // 2) / _KERNEL_STD))
    kernel = line[:, None] * line[None]
    return kernel / kernel.sum()


def _pooled(shape: Shape) -> LinearOperator:
    if any(side % _FACTOR for side in shape[:2]):
        raise UserError(f"task superresolve needs pictures of even sides, the run's are {shape[0]} x {shape[1]}")
    return operators.pooled(_FACTOR)


TASKS: dict[str, Callable[[Shape], LinearOperator]] = {
    "inpaint": lambda shape: operators.mask(jnp.asarray(_centre(shape))),
    "superresolve": _pooled,
    "blur": lambda shape: operators.blurred(jnp.asarray(_kernel())),
}
"""picture's shape -> what is measured of it, by name."""


def _numbers_of(file: Path, shape: Shape) -> np.ndarray:
    """The mask in a .npy file, [H, W] of 0 and 1.

    Raises:
        DataError: it does not read.
        UserError: another shape, or other numbers.
    """
    found = open_array(file, file.parent)
    if found.shape != shape[:2]:
        raise UserError(f"task {file} must be a mask of the pictures' size, {shape[:2]}, got the shape {found.shape}")
    if not np.isin(found, (0, 1)).all():
        raise UserError(f"task {file} must hold 0 (missing) and 1 (known) alone")
    return np.asarray(found, np.float32)


def _mask_of(file: Path, shape: Shape) -> np.ndarray:
    """The mask in a file, [H, W] of 0 and 1; a picture's white pixels are known.

    Raises:
        DataError: it does not read, or is a picture of another size.
        UserError: another shape, other numbers, or nothing known.
    """
    if file.suffix == ".npy":
        known = _numbers_of(file.resolve(), shape)
    else:
        try:
            pixels = unpack(data.read_bounded(file, _MOST_BYTES), (shape[0], shape[1], 1))
        except data.DataError as error:
            raise UserError(f"task {file} is no mask: {error}") from None
        known = (pixels[..., 0] >= _WHITE).astype(np.float32)
    if not known.any():
        raise UserError(f"task {file} must leave a pixel known: white, or 1")
    return known


def operator_of(task: str, shape: Shape) -> LinearOperator:
    """What a task measures of a picture [H, W, C]: one of TASKS, or a mask in a file.

    Raises:
        UserError: neither of them, or one that does not fit the pictures.
    """
    if task in TASKS:
        return TASKS[task](shape)
    if Path(task).suffix not in MASKS:
        raise UserError(f"task must be {', '.join(TASKS)}, or a mask's file ({' or '.join(MASKS)}), got {task!r}")
    return operators.mask(jnp.broadcast_to(_mask_of(Path(task), shape)[..., None], shape))


def _in_turn(label: np.ndarray, count: int) -> np.ndarray:
    """The places of so many pictures: the first of each label, then the second of each, and so on.

    >>> _in_turn(np.array([1, 1, 0, 1, 0]), 3).tolist()
    [2, 0, 4]
    """
    earlier = np.array([np.sum(label[:place] == y) for place, y in enumerate(label)])
    return np.lexsort((label, earlier))[:count]


def problems_of(operator: LinearOperator, images: data.Images, count: int, noise_std: float, seed: int) -> Problems:
    """The measurements of held-out images, their labels in turn; of picture i the noise is the same in any number.

    Raises:
        UserError: there are fewer pictures.
    """
    if count > len(images.label):
        raise UserError(f"num_images must be at most {len(images.label)}, the pictures held out, got {count}")
    places = _in_turn(images.label, count)
    truth = data.Images(images.pixels[places], images.label[places], images.num_classes).image
    is_measured = measured(operator, truth.shape[1:])

    def value(key: Array, z: Array) -> Array:
        found = steering.measure(operator, jax.random.fold_in(key, _NOISE), z, noise_std).value
        return jnp.where(is_measured, found, 0)

    values = jax.jit(jax.vmap(value))(sample_keys(seed, count), jnp.asarray(truth))
    return Problems(operator, truth, images.label[places], np.asarray(values), noise_std)
