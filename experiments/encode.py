"""Encode pictures to latents, to train on: a prepared data set through an autoencoder's weights.

For example: python -m experiments.encode pets --autoencoder vae/diffusion_pytorch_model.safetensors --out pets_latents
writes data/pets_latents/latents.npy [n, H, W, C] and labels.npy [n], in the encoder's own scale, statistics.json, and
source.json, which pictures they are of; prints their spread and the options to train on them. With --keep moments
latents.npy holds means and deviations.npy standard deviations, of which every training step draws anew; with --flips
flipped.npy holds the mirrored pictures' latents, one of the two being drawn. Stopped or killed, the same command goes
on where it was, to the same bytes.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from cfgjax import data
from cfgjax.models import sample_latent
from cfgjax.models.pretrained_autoencoder import PretrainedAutoencoder
from cfgjax.types import Array, Tree
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.run.autoencoder import digest_of, read_autoencoder
from experiments.run.batch_sampling import keys_at
from experiments.run.drafts import whole_file
from experiments.runtime import progress
from experiments.runtime.batching import filled_parts, plan_batching
from experiments.tasks import latent_folder, latent_pictures, picture_folder, summary
from experiments.tasks.latent_pictures import EncodedFrom

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
SHARD = 256
"""Pictures of a file of the work that is under way; what a kill costs at most."""


@dataclass(frozen=True)
class Options:
    """What to encode, and by what."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """The prepared data set."""
    autoencoder: Path
    """The safetensors file of the weights, in diffusers' layout, its folder, or that of a run of one."""
    out: Annotated[str, tyro.conf.arg(metavar="FOLDER")]
    """The folder of latents to make, inside data_dir."""
    split: str = "train"
    """The split of the data set."""
    keep: Literal["mean", "draw", "moments"] = "mean"
    """Of the encoder's Gaussian its mean; one draw, the same at each call; or mean and deviation, for draws anew."""
    flips: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Encode every picture mirrored left to right, too."""
    seed: int = 0
    """Seed of the draws."""
    data_dir: Path = Path("data")
    """Folder of prepared data sets."""


class _Work(NamedTuple):
    """What is encoded: the pictures of a split, in its order."""

    split: data.Split
    found: PretrainedAutoencoder
    options: Options

    def images(self, rows: np.ndarray) -> np.ndarray:
        """The pictures of some rows, as the encoder takes them, in [-1, 1]."""
        images = [
            np.asarray(data.normalize(record["image"]), np.float32) for record in self.split.__getitems__(rows.tolist())
        ]
        channels = self.found.network.image_channels
        return np.stack([np.repeat(image, channels, axis=-1) if image.shape[-1] == 1 else image for image in images])


def _require_encodable(work: _Work) -> None:
    """Raises UserError for pictures that the encoder does not take."""
    height, width, channels = work.split.shape
    network = work.found.network
    if height is None or width is None:
        raise UserError(f"{work.options.name} has pictures of several sizes; prepare it with --image-size")
    if channels not in (1, network.image_channels):
        raise UserError(f"autoencoder takes {network.image_channels} channels, {work.options.name} has {channels}")
    if height % network.downsampling or width % network.downsampling:
        raise UserError(
            f"autoencoder needs sides that {network.downsampling} divides, {work.options.name} has {height} x {width}; "
            "prepare it with another --image-size"
        )


def _begun(folder: Path, work: _Work, source: EncodedFrom) -> None:
    """Makes the folder of the work under way, or finds there the same work, begun before.

    Raises:
        UserError: it holds other work.
    """
    options = work.options
    told: dict[str, Any] = {name: str(value) for name, value in asdict(options).items() if name != "data_dir"}
    told |= {"autoencoder": source.autoencoder, "count": len(work.split)}
    file = folder / "settings.json"
    folder.mkdir(exist_ok=True)
    if not file.exists():
        file.write_text(json.dumps(told))
    elif data.parse_json(data.read_bounded(file, 2**16)) != told:
        raise UserError(f"out: {folder} holds the beginning of other work; remove it, or choose another out")


def _of_one(work: _Work) -> Callable[[Tree, Array, Array], Array]:
    """(parameters, image, key) -> what is kept of it, [views, H, W, C], in the order of ``data.Views``."""
    network, keep = work.found.network, work.options.keep

    def kept(params: Tree, image: Array, key: Array) -> list[Array]:
        moments: Any = network.apply(params, image, method="encode")
        mean, log_variance = moments
        if keep == "moments":
            return [mean, jnp.exp(0.5 * log_variance)]
        return [mean if keep == "mean" else sample_latent(key, mean, log_variance)]

    def one(params: Tree, image: Array, key: Array) -> Array:
        found = kept(params, image, key)
        if work.options.flips:
            found += kept(params, image[:, ::-1], jax.random.fold_in(key, 1))
        return jnp.stack(found)

    return one


def _encoder(work: _Work) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """(images, their rows) -> what is kept of them, [n, views, H, W, C], over all devices."""
    network, params, _ = work.found
    one = _of_one(work)
    height, width, _ = work.split.shape
    shape = jax.ShapeDtypeStruct((height or 1, width or 1, network.image_channels), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    plan = plan_batching(one, params, shape, key, shared=1)
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()), ("devices",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("devices"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    size = jax.device_count() * max(1, min(plan.chunk, SHARD // jax.device_count()))
    batched = jax.jit(
        jax.vmap(one, (None, 0, 0)), in_shardings=(whole, rows, rows), compiler_options=plan.compiler_options
    )

    def encode(images: np.ndarray, indices: np.ndarray) -> np.ndarray:
        found = []
        for part in filled_parts(len(images), size):
            keys = keys_at(work.options.seed, jnp.asarray(indices[part]))
            found.append(np.asarray(batched(params, images[part], keys)))
        return np.concatenate(found)[: len(images)]

    return encode


def _write_shards(folder: Path, work: _Work) -> list[Path]:
    """The files of what is kept, those made that are missing."""
    encode = _encoder(work)
    starts = range(0, len(work.split), SHARD)
    files = [folder / f"{start:09d}.npy" for start in starts]
    for start, file in progress.each(list(zip(starts, files, strict=True)), f"parts of {SHARD} pictures", "encoding"):
        if file.exists():
            continue
        rows = np.arange(start, min(start + SHARD, len(work.split)))
        with whole_file(file) as temporary, temporary.open("wb") as stream:
            np.save(stream, encode(work.images(rows), rows), allow_pickle=False)
    return files


def _views_of(options: Options, file: Path) -> data.Views:
    """What a file holds of its pictures."""
    stored = np.moveaxis(np.lib.format.open_memmap(file, "r"), 1, 0)
    has_deviations = options.keep == "moments"
    names = ["latent", "deviation"][: 1 + has_deviations] + options.flips * (
        ["flipped", "flipped_deviation"][: 1 + has_deviations]
    )
    return data.Views(**dict(zip(names, stored, strict=True)))


def _join(files: list[Path], folder: Path, work: _Work) -> None:
    """Writes the folder of latents, of the parts."""
    labels = np.concatenate(list(work.split.labels()))
    latent_folder.write(folder, len(work.split), (_views_of(work.options, file) for file in files), labels)


def _require_usable(options: Options) -> None:
    """Raises UserError for names and numbers that are none, and for a data set of another kind."""
    if not _NAME.fullmatch(options.out):
        raise UserError(f"out must be a name of letters, digits, '_', '-' and '.', got {options.out[:60]!r}")
    if not 0 <= options.seed < 2**32:
        raise UserError(f"seed must be in 0..{2**32 - 1}, got {options.seed}")
    if picture_folder.is_there(options.name, options.data_dir):
        raise UserError(f"{options.name} holds pictures with metadata; encode reads prepared sets of labelled pictures")
    if summary.holds_latents(options.name, options.data_dir):
        raise UserError(f"{options.name} holds latents already; encode reads prepared sets of labelled pictures")


def _source_of(work: _Work) -> EncodedFrom:
    options, downsampling = work.options, work.found.network.downsampling
    return EncodedFrom(options.name, options.split, digest_of(work.found), downsampling)


def encode(options: Options) -> None:
    """Encodes the pictures, or goes on with it."""
    _require_usable(options)
    out = options.data_dir / options.out
    if summary.holds_latents(options.out, options.data_dir):
        raise UserError(f"out: {out} holds latents already")
    if out.exists():
        raise UserError(f"out: {out} exists already, and holds no latents")
    split = data.open_split(options.name, options.split, options.data_dir)
    work = _Work(split, read_autoencoder(options.autoencoder), options)
    _require_encodable(work)
    begun = out.with_name(f".{out.name}.encoding")
    source = _source_of(work)
    _begun(begun, work, source)
    joined = begun / "joined"
    _join(_write_shards(begun, work), joined, work)
    latent_pictures.write(joined, source)
    joined.replace(out)
    shutil.rmtree(begun)
    summary.tell_latents(options.out, options.data_dir)


def main(args: list[str] | None = None) -> None:
    """The command line."""
    cli.main(encode, Options, "experiments.encode", __doc__, args)


if __name__ == "__main__":
    main()
