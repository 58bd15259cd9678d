"""Data sets of labelled images through tensorflow-datasets, without TensorFlow.

A set is prepared once as array_record files, read back by ``load``, and visited in an order that is a pure function of
(seed, step): ``batch_indices``. ``scale``, ``dequantise`` and ``flip`` are for ONE image, inside the step.
"""

from __future__ import annotations

from cfgjax.data.digits import Digits
from cfgjax.data.errors import DataError
from cfgjax.data.idx import is_mnist_like, read_idx
from cfgjax.data.labels import label_counts, present_labels
from cfgjax.data.latents import Latents, Spread, open_latents
from cfgjax.data.listing import Remark
from cfgjax.data.prefetch import prefetch
from cfgjax.data.shuffle import batch_indices
from cfgjax.data.sources import Images, is_prepared, load, num_classes_of, open_split, prepare
from cfgjax.data.split import Split
from cfgjax.data.summary import Summary, summary
from cfgjax.data.transforms import dequantise, normalize, random_flip, to_pixels
from cfgjax.data.untrusted.safe_files import check_memory, parse_json, read_bounded, require_inside

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
    "check_memory",
    "dequantise",
    "is_mnist_like",
    "is_prepared",
    "label_counts",
    "load",
    "normalize",
    "num_classes_of",
    "open_latents",
    "open_split",
    "parse_json",
    "prefetch",
    "prepare",
    "present_labels",
    "random_flip",
    "read_bounded",
    "read_idx",
    "require_inside",
    "summary",
    "to_pixels",
]
