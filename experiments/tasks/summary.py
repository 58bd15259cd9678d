"""What a prepared data set holds, in words."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cfgjax import data
from experiments.cli.main import plain, warn
from experiments.tasks import latent_scale
from experiments.tasks.label_names import names_to_tell, numbers_of, said_of_absent

_MOST_FILES = 20
"""That a line names."""
_MOSTCHANNELS = 16
CHANNELS = {1: "gray", 3: "in colour"}


def _shown(file: Path) -> str:
    """The file as it is found from here."""
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def text_of(remark: data.Remark) -> str:
    """A remark on some files, in one line."""
    named = ", ".join(map(_shown, remark.files[:_MOST_FILES])) + (", ..." if len(remark.files) > _MOST_FILES else "")
    return plain(f"{len(remark.files)} {'file' if len(remark.files) == 1 else 'files'} {remark.what}: {named}")


def _smallest(counts: np.ndarray, names: tuple[str, ...]) -> str:
    present = np.flatnonzero(counts)
    y = int(present[np.argmin(counts[present])])
    return f"the smallest {names[y]} with {counts[y]}"


def lines_of(found: data.Summary) -> list[str]:
    """Pictures, size and channels, splits, and labels with the one of the fewest pictures."""
    total = sum(found.counts.values(), np.zeros((), np.int64))
    height, width, channels = found.shape
    size = "of several sizes" if None in (height, width) else f"of {height} x {width}"
    splits = ", ".join(f"{split} {counts.sum()}" for split, counts in found.counts.items())
    names = names_to_tell(found.label_names) or numbers_of(len(total))
    return [
        f"{total.sum()} pictures {size}, {CHANNELS[channels]}: {splits}",
        f"{len(total)} labels, {_smallest(total, names)}",
    ]


def warnings_of(counts: Mapping[str, np.ndarray]) -> list[str]:
    """What training will stumble over: labels without a training example, and a split that is not there."""
    found = []
    if "train" in counts and not counts["train"].all():
        found.append(said_of_absent(np.flatnonzero(counts["train"] == 0).tolist(), len(counts["train"])))
    for split in ("train", "test"):
        if split not in counts:
            one = max(counts, key=lambda name: counts[name].sum())
            found.append(
                f"warning: there is no split {split}, which training needs: prepare more pictures of each label, or "
                f"train with --data.train-split '{one}[:90%]' --data.test-split '{one}[90%:]'"
            )
    return found


def holds_latents(name: str, data_dir: Path) -> bool:
    """Whether a folder of this name, of a data set, holds latents."""
    return (data_dir / name / "latents.npy").exists()


def _listed(values: np.ndarray) -> str:
    return ", ".join(f"{value:.2g}" for value in values[:_MOSTCHANNELS]) + (", ..." * (len(values) > _MOSTCHANNELS))


def _said_of_parts(latents: data.Latents) -> str:
    """What is stored beside the latents, and that it is drawn of."""
    twins = "" if latents.flipped is None else ", each with its mirrored twin's, one of the two drawn at each step"
    return twins + ("" if latents.deviation is None else ", means with deviations, drawn anew at each step")


def tell_latents(name: str, data_dir: Path) -> None:
    """Prints what a folder of latents holds, and with which settings it is trained on.

    Raises:
        DataError: as ``data.open_latents``.
    """
    latents = data.open_latents(data_dir / name, data_dir)
    spread = latents.spread()
    deviation = latent_scale.deviation_of(spread)
    labels, counts = np.unique(latents.label, return_counts=True)
    count, *shape = latents.latent.shape
    fewest, factor = int(np.argmin(counts)), latent_scale.factor_for(deviation) or 1.0
    num_held_out = min(1024, max(1, count // 10))
    patch = " --network.patch 1" if shape[0] % 2 or shape[1] % 2 else ""
    print(f"{name} in {data_dir} holds latents, which need no preparation")
    print(f"  {count} latents of {' x '.join(map(str, shape))}, {latents.latent.dtype}{_said_of_parts(latents)}")
    print(f"  {len(labels)} labels in {labels[0]}..{labels[-1]}, the smallest {labels[fewest]} with {counts[fewest]}")
    print(f"  standard deviation {deviation:.3g}; by channel {_listed(spread.deviation)}, means {_listed(spread.mean)}")
    print(
        f"  train on them with imagenet256_latent --data.folder {name} --data.shape {' '.join(map(str, shape))} "
        f"--data.num-classes {labels[-1] + 1} --data.factor {factor:g} --data.num-held-out {num_held_out}{patch}"
    )
    for warning in latent_scale.warnings_of(spread, factor):
        warn(warning)


def tell(name: str, data_dir: Path) -> None:
    """Prints what a prepared data set holds, and warns of what it lacks."""
    try:
        found = data.summary(name, data_dir)
    except data.DataError as error:
        warn(f"warning: no run can be trained on it: {plain(str(error))}")
        return
    for line in lines_of(found):
        print(f"  {plain(line)}")
    for warning in warnings_of(found.counts):
        warn(warning)
