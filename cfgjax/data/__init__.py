"""Data sets of labelled images through tensorflow-datasets, without TensorFlow.

A set is prepared once as array_record files, read back by ``load``, and visited in an order that is a pure function of
(seed, step): ``batch_indices``. ``normalize``, ``dequantise`` and ``random_flip`` are for ONE image, inside the step.
"""

from __future__ import annotations

from cfgjax.data.conditioned_images import ConditionedImages as ConditionedImages
from cfgjax.data.conditioned_images import hold_out as hold_out
from cfgjax.data.embeddings import Embeddings as Embeddings
from cfgjax.data.embeddings import join_embeddings as join_embeddings
from cfgjax.data.embeddings import read_embeddings as read_embeddings
from cfgjax.data.fid_references import FIDReference as FIDReference
from cfgjax.data.fid_references import read_fid_reference as read_fid_reference
from cfgjax.data.fid_references import stream_pictures as stream_pictures
from cfgjax.data.foreign_latents import holds_foreign_latents as holds_foreign_latents
from cfgjax.data.foreign_latents import read_foreign_latents as read_foreign_latents
from cfgjax.data.idx import is_mnist_like as is_mnist_like
from cfgjax.data.labels import label_counts as label_counts
from cfgjax.data.labels import present_labels as present_labels
from cfgjax.data.latent_source import LatentSource as LatentSource
from cfgjax.data.latent_statistics import Statistics as Statistics
from cfgjax.data.latent_statistics import read_statistics as read_statistics
from cfgjax.data.latent_statistics import write_statistics as write_statistics
from cfgjax.data.latents import Latents as Latents
from cfgjax.data.latents import Spread as Spread
from cfgjax.data.latents import Views as Views
from cfgjax.data.latents import open_latents as open_latents
from cfgjax.data.listing import Remark as Remark
from cfgjax.data.metadata_folder import holds_metadata as holds_metadata
from cfgjax.data.metadata_folder import read_metadata_folder as read_metadata_folder
from cfgjax.data.metadata_writer import write_metadata_folder as write_metadata_folder
from cfgjax.data.parquet import holds_parquet as holds_parquet
from cfgjax.data.parquet import read_parquet as read_parquet
from cfgjax.data.prefetch import prefetch as prefetch
from cfgjax.data.shuffle import batch_indices as batch_indices
from cfgjax.data.sources import Images as Images
from cfgjax.data.sources import is_prepared as is_prepared
from cfgjax.data.sources import load as load
from cfgjax.data.sources import num_classes_of as num_classes_of
from cfgjax.data.sources import open_split as open_split
from cfgjax.data.sources import prepare as prepare
from cfgjax.data.split import Split as Split
from cfgjax.data.summary import Summary as Summary
from cfgjax.data.summary import summary as summary
from cfgjax.data.transforms import dequantise as dequantise
from cfgjax.data.transforms import draw_latent as draw_latent
from cfgjax.data.transforms import normalize as normalize
from cfgjax.data.transforms import random_flip as random_flip
from cfgjax.data.transforms import to_pixels as to_pixels
from cfgjax.data.untrusted import DataError as DataError
from cfgjax.data.untrusted.idx import read_idx as read_idx
from cfgjax.data.untrusted.safe_files import check_memory as check_memory
from cfgjax.data.untrusted.safe_files import parse_json as parse_json
from cfgjax.data.untrusted.safe_files import read_bounded as read_bounded
from cfgjax.data.untrusted.safe_files import require_inside as require_inside
