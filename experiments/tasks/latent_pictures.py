"""Which pictures a folder of latents is of: source.json beside them, and these pictures, to measure samples by."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError

from cfgjax import data
from cfgjax.data.sources import split_lengths
from experiments.config.history import STRICT
from experiments.config.kinds import ImageData, LatentData
from experiments.config.schema import Experiment
from experiments.config.values import DataName, SplitName
from experiments.run.decoder import Decoder
from experiments.runtime import distributed
from experiments.tasks import images
from experiments.tasks.label_names import names_to_tell, numbers_of

NAME = "source.json"
_MOST_BYTES = 2**16
_HELD_OUT = "test", "validation", "train"
"""Splits of which the first that was not encoded is held out."""


@dataclass(frozen=True)
class EncodedFrom:
    """Which pictures latents are of, and what encoded them."""

    __pydantic_config__ = STRICT
    pictures: DataName
    """The prepared data set."""
    split: SplitName
    """Its split."""
    autoencoder: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """The digest of its network and parameters."""
    downsampling: Annotated[int, Field(ge=1, le=2**10)]
    """By which a picture is higher and wider than its latent."""


_ADAPTER = TypeAdapter(EncodedFrom)


def write(folder: Path, source: EncodedFrom) -> None:
    """Writes source.json into a folder of latents."""
    (folder / NAME).write_bytes(_ADAPTER.dump_json(source, indent=2) + b"\n")


def read(folder: Path, root: Path) -> EncodedFrom | None:
    """What a folder of latents tells of its pictures; None where it tells nothing.

    Args:
        folder: of latents.
        root: the folder that no link may lead out of.

    Raises:
        DataError: a file that does not read as such.
    """
    file = folder / NAME
    if not file.exists():
        return None
    try:
        return _ADAPTER.validate_json(data.read_bounded(data.require_inside(file, root), _MOST_BYTES), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part)[:100] for part in first["loc"])
        raise data.DataError(f"{file} does not read: {where}: {first['msg'][:200]}") from None


def warn_of_other_weights(experiment: Experiment, decoder: Decoder) -> None:
    """Warns where the folder of a run's latents is there, and tells of another autoencoder than the decoder's."""
    folder: Path | None = getattr(experiment.data, "folder", None)
    if folder is None:
        return
    try:
        source = read(experiment.data_dir / folder, experiment.data_dir)
    except data.DataError:
        return
    if source is not None and source.autoencoder != decoder.digest:
        distributed.warn(
            f"warning: the latents of {source.pictures} were encoded by another autoencoder than {decoder.place}"
        )


class Pictures(NamedTuple):
    """The pictures that latents are of, and the held-out ones, as a run on them would read them.

    Attributes:
        settings: of the data set.
        train: the pictures that were encoded.
        test: the held-out ones.
        texts: what each label is called.
    """

    settings: ImageData
    train: data.Images
    test: data.Images
    texts: tuple[str, ...]


class NoPicturesError(Exception):
    """There are no pictures to measure by; the message says in one line why, and what to do."""


def _held_out(source: EncodedFrom, data_dir: Path) -> str:
    """The split to measure by."""
    known, encoded = split_lengths(source.pictures, data_dir), source.split.partition("[")[0]
    found = [name for name in _HELD_OUT if name != encoded and known.get(name)]
    if not found:
        raise NoPicturesError(f"{source.pictures} in {data_dir} has no split beside {encoded} to measure samples by")
    return found[0]


def pictures_of(experiment: Experiment, settings: LatentData) -> Pictures:
    """The pictures that a run's latents are of.

    Raises:
        DataError: a source.json, or a data set, that does not read.
        NoPicturesError: no source.json, or its data set is not prepared.
    """
    data_dir = experiment.data_dir
    source = read(data_dir / settings.folder, data_dir)
    if source is None:
        raise NoPicturesError(
            f"{settings.folder} has no {NAME}, which tells its pictures: experiments.encode writes it"
        )
    if not data.is_prepared(source.pictures, data_dir):
        raise NoPicturesError(
            f"the latents are of {source.pictures}, which is not prepared in {data_dir}: python -m experiments.prepare "
            f"{source.pictures} --data-dir {data_dir}"
        )
    split = data.open_split(source.pictures, source.split, data_dir)
    as_images = ImageData(
        source.pictures,
        source.split,
        _held_out(source, data_dir),
        in_memory=len(split) <= images.NOMINAL_EXAMPLES,
    )
    train, test = images.load_train(experiment, as_images), images.load_test(experiment, as_images)
    texts = names_to_tell(split.label_names) or numbers_of(test.num_classes)
    return Pictures(as_images, train, test, texts)
