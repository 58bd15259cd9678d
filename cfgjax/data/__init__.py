"""Data sets of labelled images through tensorflow-datasets, without TensorFlow.

A set is prepared once as array_record files, read back by ``load``, and visited in an order that is a pure function of
(seed, step): ``batch_indices``. ``scale``, ``dequantise`` and ``flip`` are for ONE image, inside the step.
"""

from __future__ import annotations

from cfgjax.data.digits import Digits
from cfgjax.data.errors import DataError
from cfgjax.data.idx import is_of_family, read_idx
from cfgjax.data.labels import label_counts, present_labels
from cfgjax.data.latents import Latents, Spread, open_latents
from cfgjax.data.listing import Remark
from cfgjax.data.prefetch import stream
from cfgjax.data.shuffle import batch_indices
from cfgjax.data.sources import Images, is_prepared, load, num_labels_of, open_split, prepare
from cfgjax.data.split import Split
from cfgjax.data.summary import Summary, summary
from cfgjax.data.transforms import dequantise, flip, scale, to_pixels
from cfgjax.data.untrusted.safe_files import parse_json, read_bounded, require_fits, require_inside

__all__ = [
    "DataError",
    "Digits",
    "Images",
    "Latents",
    "Remark",
    "Split",
    "Spread",
    "Summary",
    "batch_indices",
    "dequantise",
    "flip",
    "is_of_family",
    "is_prepared",
    "label_counts",
    "load",
    "num_labels_of",
    "open_latents",
    "open_split",
    "parse_json",
    "prepare",
    "present_labels",
    "read_bounded",
    "read_idx",
    "require_fits",
    "require_inside",
    "scale",
    "stream",
    "summary",
    "to_pixels",
]
