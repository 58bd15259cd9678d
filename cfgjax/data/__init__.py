"""Data sets of labelled images through tensorflow-datasets, without TensorFlow.

A set is prepared once as array_record files, read back by ``load``, and visited in an order that is a pure function of
(seed, step): ``batch_indices``. ``normalize``, ``dequantise`` and ``random_flip`` are for ONE image, inside the step.
"""

from __future__ import annotations

from cfgjax.data.digits import Digits as Digits
from cfgjax.data.idx import is_mnist_like as is_mnist_like, read_idx as read_idx
from cfgjax.data.labels import label_counts as label_counts, present_labels as present_labels
from cfgjax.data.latents import Latents as Latents, Spread as Spread, open_latents as open_latents
from cfgjax.data.listing import Remark as Remark
from cfgjax.data.prefetch import prefetch as prefetch
from cfgjax.data.shuffle import batch_indices as batch_indices
from cfgjax.data.sources import (
    Images as Images,
    is_prepared as is_prepared,
    load as load,
    num_classes_of as num_classes_of,
    open_split as open_split,
    prepare as prepare,
)
from cfgjax.data.split import Split as Split
from cfgjax.data.summary import Summary as Summary, summary as summary
from cfgjax.data.transforms import (
    dequantise as dequantise,
    normalize as normalize,
    random_flip as random_flip,
    to_pixels as to_pixels,
)
from cfgjax.data.untrusted import DataError as DataError
from cfgjax.data.untrusted.safe_files import (
    check_memory as check_memory,
    parse_json as parse_json,
    read_bounded as read_bounded,
    require_inside as require_inside,
)
