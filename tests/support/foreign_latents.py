"""Latents as other projects write them, small, in their own layouts, and what is expected of them."""

import io
import json
import zipfile

import numpy as np
from safetensors.numpy import save_file

from cfgjax.data import Views
from cfgjax.data.mean_std_latents import MEANS, STDS

SIDE = 4


def moments(kind, count=300, seed=0):
    """Means and deviations [n, 8, 4, 4] with the channels' figures of a kind."""
    generator = np.random.default_rng(seed)
    mean, std = (np.reshape(figures[kind], (4, 1, 1)) for figures in (MEANS, STDS))
    found = [generator.normal(mean, std, (count, 4, SIDE, SIDE)), generator.uniform(0, 0.1, (count, 4, SIDE, SIDE))]
    return np.concatenate(found, axis=1).astype(np.float32)


def all_of(source):
    """All that a source holds, as one."""
    blocks = list(source.blocks())
    assert max(len(block.latent) for block in blocks) <= 256
    return Views(*(None if parts[0] is None else np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def npy(array):
    """The bytes of a .npy."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def files_of(stored, labels):
    """The files of means and deviations, by their names."""
    names = [f"{row:08d}"[:5] + f"/img-mean-std-{row:08d}.npy" for row in range(len(stored))]
    files = {name: npy(array) for name, array in zip(names, stored, strict=True)}
    told = {"labels": [[name, int(label)] for name, label in zip(names, labels, strict=True)]}
    return files | {"dataset.json": json.dumps(told).encode()}


def write_folder(place, files):
    """Files in a folder."""
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return place


def write_zip(place, files):
    """Files in a zip, as they are."""
    with zipfile.ZipFile(place, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return place


def write_shard(place, latents, labels, flipped=None):
    """A shard of LightningDiT's."""
    place.parent.mkdir(parents=True, exist_ok=True)
    tensors = {"latents": latents, "labels": labels} | ({} if flipped is None else {"latents_flip": flipped})
    save_file(tensors, place, metadata={"total_size": str(len(latents)), "dtype": "torch.float32", "device": "cpu"})
    return place
