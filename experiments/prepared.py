"""What a prepared data set holds, in words."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cfgjax import data
from experiments.command import plain, say
from experiments.labels import names_to_tell, numbers_of, said_of_absent

_MOST_FILES = 20
"""That a line names."""
_CHANNELS = {1: "gray", 3: "in colour"}


def _shown(file: Path) -> str:
    """The file as it is found from here."""
    here = Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def text_of(remark: data.Remark) -> str:
    """What is to be told of some files, in one line."""
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
        f"{total.sum()} pictures {size}, {_CHANNELS[channels]}: {splits}",
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


def tell(name: str, data_dir: Path) -> None:
    """Prints what a prepared data set holds, and warns of what it lacks."""
    try:
        found = data.summary(name, data_dir)
    except data.DataError as error:
        say(f"warning: no run can be trained on it: {plain(str(error))}")
        return
    for line in lines_of(found):
        print(f"  {plain(line)}")
    for warning in warnings_of(found.counts):
        say(warning)
