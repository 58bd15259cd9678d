"""What the JSON files of a prepared data set declare, read strictly, before tensorflow-datasets reads them.

features.json names Python classes, and tensorflow-datasets imports the modules of those that it does not know; so do
features inside dataset_info.json. Here only a short list of classes passes, every name of a file stays in the folder,
and every number has bounds.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from cfgjax.data.untrusted import DataError
from cfgjax.data.untrusted.safe_files import parse_json, read_bounded, require_inside

_MOST_BYTES = 16 * 2**20
MOST_LABELS = 1_000_000
MOST_EXAMPLES = 2**28


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, frozen=True)


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}$")]
Length = Annotated[int, Field(ge=-1, le=65_536)]
Type = Annotated[str, Field(pattern=r"^[a-z0-9]{1,16}$")]


class _Shape(_Strict):
    dimensions: Annotated[list[Length], Field(max_length=8)] = []


class _Tensor(_Strict):
    shape: _Shape = _Shape()
    dtype: Type
    encoding: Type = "none"
    minimum: int = 0
    maximum: int = 0
    optional: bool = False


class _Box(_Strict):
    shape: _Shape
    dtype: Type
    bbox_format: str = ""


class _NumClasses(_Strict):
    num_classes: Annotated[int, Field(ge=1, le=MOST_LABELS)]


class _Picture(_Strict):
    shape: _Shape
    dtype: Type = "uint8"
    encoding_format: Literal["png", "jpeg", ""] = ""
    use_colormap: bool = False


class _Feature(_Strict):
    description: str = ""
    value_range: str = ""


class _ImageFeature(_Feature):
    python_class_name: Literal["tensorflow_datasets.core.features.image_feature.Image"]
    image: _Picture


class _LabelFeature(_Feature):
    python_class_name: Literal["tensorflow_datasets.core.features.class_label_feature.ClassLabel"]
    class_label: _NumClasses


class _TextFeature(_Feature):
    python_class_name: Literal["tensorflow_datasets.core.features.text_feature.Text"]
    text: _Strict


class _TensorFeature(_Feature):
    python_class_name: Literal[
        "tensorflow_datasets.core.features.tensor_feature.Tensor",
        "tensorflow_datasets.core.features.scalar.Scalar",
    ]
    tensor: _Tensor


class _BoxFeature(_Feature):
    python_class_name: Literal["tensorflow_datasets.core.features.bounding_boxes.BBoxFeature"]
    bounding_box: _Box


class _Several(_Strict):
    feature: Feature
    length: Length = -1


class _SequenceFeature(_Feature):
    python_class_name: Literal["tensorflow_datasets.core.features.sequence_feature.Sequence"]
    sequence: _Several


class _Named(_Strict):
    features: Annotated[dict[Name, Feature], Field(max_length=1_000)] = {}


class _DictFeature(_Feature):
    python_class_name: Literal["tensorflow_datasets.core.features.features_dict.FeaturesDict"]
    features_dict: _Named


Feature = Annotated[
    _ImageFeature | _LabelFeature | _TextFeature | _TensorFeature | _BoxFeature | _SequenceFeature | _DictFeature,
    Field(discriminator="python_class_name"),
]
for _model in (_Several, _Named, _SequenceFeature, _DictFeature):
    _model.model_rebuild()


class _Split(_Strict):
    name: Name
    shard_lengths: Annotated[list[Annotated[int, Field(ge=0, le=MOST_EXAMPLES)]], Field(max_length=2**16)] = []
    num_bytes: int = 0
    filepath_template: Annotated[str, Field(pattern=r"^[A-Za-z0-9_{}.-]{0,200}$")] = ""
    statistics: Any = None


class _Info(_Strict):
    """The fields of dataset_info.json but ``features``, by which it could name classes, too."""

    name: Name
    version: str
    splits: Annotated[list[_Split], Field(max_length=1_000)] = []
    file_format: str = "tfrecord"
    config_name: Annotated[str, Field(max_length=100)] = ""
    description: Any = None
    release_notes: Any = None
    config_description: Any = None
    config_tags: Any = None
    citation: Any = None
    size_in_bytes: Any = None
    download_size: Any = None
    location: Any = None
    download_checksums: Any = None
    data_schema: Annotated[Any, Field(alias="schema")] = None
    supervised_keys: Any = None
    redistribution_info: Any = None
    module_name: Any = None
    disable_shuffling: Any = None
    alternative_file_formats: Any = None
    data_source_accesses: Any = None
    is_blocked: Any = None
    nondeterministic_order: Any = None


class Declared(NamedTuple):
    """What a prepared data set says of itself.

    Attributes:
        file_format: of its records.
        shape: height, width and channels of its images; None where it says nothing.
        num_classes: K.
        split_lengths: the examples of every file, by split.
        label_names: of the labels, in order; None where they have none.
    """

    file_format: str
    shape: tuple[int | None, int | None, int]
    num_classes: int
    split_lengths: dict[str, tuple[int, ...]]
    label_names: tuple[str, ...] | None


def complaint(error: ValidationError) -> str:
    """The first thing that is wrong, in one line of bounded length: where, what, and what was given."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"{where[:200]}: {first['msg'][:400]}, got {repr(first['input'])[:100]}"


def _read(file: Path, root: Path, model: Any) -> Any:
    content = read_bounded(require_inside(file, root), _MOST_BYTES)
    try:
        return model.model_validate(parse_json(content))
    except ValidationError as error:
        raise DataError(f"{file} does not read: {complaint(error)}") from None
    except ValueError as error:
        raise DataError(f"{file} does not read: {error}") from None


def _image_and_label(file: Path, features: dict[str, Any]) -> tuple[_Picture, int]:
    image, label = features.get("image"), features.get("label")
    if not isinstance(image, _ImageFeature) or not isinstance(label, _LabelFeature):
        raise DataError(f"{file} has no image and label, only {', '.join(features) or 'nothing'}")
    return image.image, label.class_label.num_classes


def _shape_of(file: Path, image: _Picture) -> tuple[int | None, int | None, int]:
    lengths = image.shape.dimensions
    if image.dtype != "uint8" or len(lengths) != 3 or 0 in lengths or lengths[2] not in (1, 3):
        raise DataError(
            f"{file}: image must be of type uint8 and shape [H, W, 1 or 3], got {image.dtype} of shape {lengths}"
        )
    height, width = (None if length == -1 else length for length in lengths[:2])
    return height, width, lengths[2]


def _names_in(file: Path, root: Path) -> tuple[str, ...]:
    """The different names in a file, one a line."""
    try:
        lines = read_bounded(require_inside(file, root), _MOST_BYTES).decode().split("\n")
    except UnicodeDecodeError:
        raise DataError(f"{file} is not text in UTF-8") from None
    return tuple(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _label_names(folder: Path, root: Path, num_classes: int) -> tuple[str, ...] | None:
    """The labels' names; looks at all files of names, which tensorflow-datasets reads whole, dropping their errors."""
    found = {file.name: _names_in(file, root) for file in folder.glob("*.labels.txt")}
    names = found.get("label.labels.txt")
    if names is not None and len(names) != num_classes:
        file = folder / "label.labels.txt"
        raise DataError(f"{file} names {len(names)} labels, and features.json says {num_classes}")
    return names


def read_declared(folder: Path, root: Path) -> Declared:
    """What a prepared data set declares.

    Args:
        folder: of one version: dataset_info.json, features.json, and the records.
        root: the folder that nothing may lead out of.

    Raises:
        DataError: a file that is missing, malformed, leads out, or says what is not allowed; the message names it.
    """
    info = _read(folder / "dataset_info.json", root, _Info)
    if info.version != folder.name:
        raise DataError(f"{folder / 'dataset_info.json'} is of version {info.version[:20]!r}, its folder {folder.name}")
    features = _read(folder / "features.json", root, _DictFeature)
    image, num_classes = _image_and_label(folder / "features.json", features.features_dict.features)
    names = _label_names(folder, root, num_classes)
    lengths = {split.name: tuple(split.shard_lengths) for split in info.splits}
    return Declared(info.file_format, _shape_of(folder / "features.json", image), num_classes, lengths, names)


_NAME = re.compile(r"[a-z0-9_]+(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)?")


def require_name(name: str) -> str:
    """The data set's name itself, once it is found to name a folder and nothing above it.

    Raises:
        DataError: another name.
    """
    if len(name) > 200 or not _NAME.fullmatch(name):
        raise DataError(
            f"a data set's name must be of small letters, digits and underscores, or such a NAME/CONFIG, got {name!r}"
        )
    return name
