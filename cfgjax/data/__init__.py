"""Data sets of labelled images through tensorflow-datasets, without TensorFlow.

A set is prepared once as array_record files, read back by ``load``, and visited in an order that is a pure function of
(seed, step): ``batch_indices``.
"""

from cfgjax.data.batches import batch_indices
from cfgjax.data.digits import Digits
from cfgjax.data.sources import DataError, Images, is_prepared, load, prepare

__all__ = ["DataError", "Digits", "Images", "batch_indices", "is_prepared", "load", "prepare"]
