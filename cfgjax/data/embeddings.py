"""Stored embeddings of conditions, made elsewhere: one row for each picture, in a .npz or .safetensors file.

``embeddings`` [N, d] or [N, length, d] of floating-point numbers; beside it ``mask`` [N, length], 1 where a token is, 0
where padding fills sequences of several lengths; and ``file_name``, the N paths of the pictures: in .npz an array of
text, in .safetensors, which holds no text, a JSON list in the metadata. Without it they are in the order of the rows.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np

from cfgjax.contracts import PathLike, checked, instance
from cfgjax.data.conditioned_images import ConditionedImages
from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.metadata import FILE_NAME
from cfgjax.data.untrusted.npz import read_npz
from cfgjax.data.untrusted.safe_files import check_memory, parse_json, require_file, require_inside
from cfgjax.data.untrusted.tfds_metadata import MOST_EXAMPLES

EMBEDDINGS, MASK = "embeddings", "mask"
_DTYPES = {"F64", "F32", "F16", "BF16", "BOOL", "U8", "I8", "I32", "I64"}


class Embeddings(NamedTuple):
    """Stored embeddings in memory.

    Attributes:
        values: [N, d] or [N, length, d] float32, 0 where the mask is False.
        mask: [N, length] booleans, which tokens are there, at least one of each row; None for all.
        file_name: the N paths of the pictures; None where the rows are in their order.
    """

    values: np.ndarray
    mask: np.ndarray | None
    file_name: tuple[str, ...] | None


def _of_safetensors(file: Path, root: Path) -> dict[str, Any]:
    try:
        import safetensors
    except ImportError:
        raise DataError("reading .safetensors needs safetensors: python -m pip install 'cfgjax[safetensors]'") from None
    require_file(require_inside(file, root))
    try:
        with safetensors.safe_open(file, framework="np") as opened:
            found: dict[str, Any] = {}
            for name in {EMBEDDINGS, MASK}.intersection(opened.keys()):
                dtype = opened.get_slice(name).get_dtype()
                if dtype not in _DTYPES:
                    raise ValueError(f"tensor {name!r} is of type {dtype}, which is not read")
                found[name] = opened.get_tensor(name)
            names = (opened.metadata() or {}).get(FILE_NAME)
            if names is not None:
                found[FILE_NAME] = parse_json(names.encode())
            return found
    except (safetensors.SafetensorError, ValueError, OSError) as error:
        raise DataError(f"{file} does not read: {' '.join(str(error).split())[:300]}") from None


def _as_values(file: Path, stored: np.ndarray) -> np.ndarray:
    if stored.dtype.type is np.void:
        raise DataError(
            f"{file}: {EMBEDDINGS} is of type {stored.dtype.str}, which does not say its numbers, as NumPy writes "
            "bfloat16: save array.astype(np.float32)"
        )
    is_float = np.issubdtype(stored.dtype, np.floating) or stored.dtype.name == "bfloat16"
    if not is_float or stored.ndim not in (2, 3) or 0 in stored.shape:
        raise DataError(
            f"{file}: {EMBEDDINGS} must be [N, d] or [N, length, d] of a floating type, none of them 0, "
            f"got {stored.dtype} of shape {stored.shape}"
        )
    check_memory(f"{file}: {EMBEDDINGS}", 4 * stored.size)
    with np.errstate(over="ignore"):
        return stored.astype(np.float32)


def _as_mask(file: Path, stored: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) != 3 or stored.shape != shape[:2]:
        raise DataError(f"{file}: {MASK} must be [N, length] beside {EMBEDDINGS} {shape}, got shape {stored.shape}")
    if stored.dtype.kind not in "biu" or not np.isin(stored, (0, 1)).all():
        raise DataError(f"{file}: {MASK} must be of booleans, or integers 0 and 1, got {stored.dtype}")
    mask = stored.astype(bool)
    if not mask.any(axis=1).all():
        raise DataError(f"{file}: {MASK} leaves no token in row {int(np.flatnonzero(~mask.any(axis=1))[0])}")
    return mask


def _as_names(file: Path, stored: Any, count: int) -> tuple[str, ...]:
    """The paths of an array of text, or of a list."""
    if isinstance(stored, np.ndarray) and stored.dtype.kind == "U" and stored.ndim == 1:
        points = stored.astype(stored.dtype.newbyteorder("=")).view(np.uint32)
        if (points > sys.maxunicode).any():
            raise DataError(f"{file}: {FILE_NAME} is no text in Unicode")
        stored = stored.tolist()
    is_text = isinstance(stored, list) and all(isinstance(name, str) for name in stored)
    if not is_text or len(stored) != count:
        got = f"{len(stored)}" if is_text else "other ones"
        raise DataError(f"{file}: {FILE_NAME} must be {count} paths as text, got {got}")
    seen: dict[str, int] = {}
    for row, name in enumerate(stored):
        if name in seen:
            raise DataError(f"{file}: {FILE_NAME} {name[:200]!r} stands in rows {seen[name]} and {row}")
        seen[name] = row
    return tuple(stored)


def _require_finite(file: Path, values: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """The values, 0 where there is no token, once they are found to be finite where there is one."""
    if mask is not None:
        values = np.where(mask[..., np.newaxis], values, np.float32(0))
    is_finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if not is_finite.all():
        raise DataError(f"{file}: row {int(np.flatnonzero(~is_finite)[0])} of {EMBEDDINGS} is not finite in float32")
    return values


@checked
def read_embeddings(file: PathLike, root: PathLike | None = None) -> Embeddings:
    """The stored embeddings in a file, float16 and bfloat16 widened.

    Args:
        file: .npz, or .safetensors, which knows bfloat16.
        root: the folder that no link may lead out of; by default the file's.

    Raises:
        DataError: another kind of file, a pickle among them; arrays of other types or shapes, that do not fit each
            other or memory, or are not finite where a token is; a mask that leaves no token; a file named twice.
    """
    file = Path(file)
    root = file.parent if root is None else Path(root)
    if file.suffix not in (".npz", ".safetensors"):
        raise DataError(f"{file} must end in .npz or .safetensors")
    is_npz = file.suffix == ".npz"
    found = read_npz(file, root, {EMBEDDINGS, MASK, FILE_NAME}) if is_npz else _of_safetensors(file, root)
    if EMBEDDINGS not in found:
        raise DataError(f"{file} has no array {EMBEDDINGS!r}")
    values = _as_values(file, found[EMBEDDINGS])
    if len(values) > MOST_EXAMPLES:
        raise DataError(f"{file} holds {len(values)} rows, more than {MOST_EXAMPLES}")
    mask = _as_mask(file, found[MASK], values.shape) if MASK in found else None
    names = _as_names(file, found[FILE_NAME], len(values)) if FILE_NAME in found else None
    return Embeddings(_require_finite(file, values, mask), mask, names)


def _rows_by_name(images: Mapping[str, ConditionedImages], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The rows of the pictures of each split; each picture has one, and each row a picture."""
    row_of = {name: row for row, name in enumerate(names)}
    used: set[str] = set()
    for its in images.values():
        for name in its.file_name:
            if name in used:
                raise DataError(f"picture {name[:200]!r} is there twice: embeddings by file_name need different names")
            if name not in row_of:
                raise DataError(f"picture {name[:200]!r} has no row in the embeddings")
            used.add(name)
    others = [name for name in names if name not in used]
    if others:
        raise DataError(f"the embeddings have a row for {others[0][:200]!r}, which is none of the pictures")
    return {split: np.array([row_of[name] for name in its.file_name]) for split, its in images.items()}


def _rows_in_order(images: Mapping[str, ConditionedImages], count: int) -> dict[str, np.ndarray]:
    """The rows of the pictures of each split, by the order of what tells of them."""
    places = [its.row for its in images.values() if its.row is not None]
    if len(places) < len(images):
        raise DataError("the rows of the metadata are in another order than the pictures: embeddings need file_name")
    place = np.concatenate(places)
    if not len(np.unique(place)) == len(place) == count:
        raise DataError(f"the embeddings have {count} rows, and there are {len(np.unique(place))} pictures")
    rows = np.searchsorted(np.sort(place), place)
    return dict(zip(images, np.split(rows, np.cumsum([len(its) for its in places])[:-1]), strict=True))


@checked
def join_embeddings(
    images: Annotated[dict, instance(dict, "a dict of ConditionedImages by split, as a reader gives it")],
    embeddings: Annotated[Embeddings, instance(Embeddings, "Embeddings, as data.read_embeddings gives them")],
) -> dict[str, ConditionedImages]:
    """The images with two columns more: ``embeddings``, and ``mask`` where there is one.

    Args:
        images: of all splits that the embeddings tell of.
        embeddings: with a row for each picture, by ``file_name``, or else in the order of the rows that tell of them.

    Raises:
        DataError: a picture without a row, a row without a picture, a column of that name; embeddings without
            ``file_name`` where the metadata's rows have another order than the pictures by their paths.
    """
    count, names = len(embeddings.values), embeddings.file_name
    rows = _rows_in_order(images, count) if names is None else _rows_by_name(images, names)
    new = {EMBEDDINGS: embeddings.values} | ({} if embeddings.mask is None else {MASK: embeddings.mask})
    joined = {}
    for split, its in images.items():
        taken = new.keys() & its.columns.keys()
        if taken:
            raise DataError(f"the images have a column {min(taken)!r} of their own")
        joined[split] = its._replace(columns=its.columns | {name: array[rows[split]] for name, array in new.items()})
    return joined
