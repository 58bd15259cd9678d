"""A folder of checkpoints: what is in it, and how more are written."""

from __future__ import annotations

import contextlib
import operator
import os
import shutil
from collections.abc import Container, Iterator
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, NamedTuple, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from orbax.checkpoint import checkpoint_managers

from cfgjax.checkpoints.checksums import checksums, host_checksum
from cfgjax.checkpoints.commits import commit_failures, wait_for_commit
from cfgjax.checkpoints.errors import CheckpointError, reason
from cfgjax.checkpoints.metadata import JSONMapping, with_digest
from cfgjax.checkpoints.trees import StorableTree, flatten_with_names, places, stored
from cfgjax.checks import require_scalar
from cfgjax.contracts import Contract, NonNegativeInt, PositiveInt, checked, record

METRIC = "held_out_loss"
STATE, METADATA = "state", "metadata"


class RetentionPolicy(NamedTuple):
    """Which checkpoints are kept; one that any of the three rules names stays.

    Attributes:
        last: the last n, at least 1, None for all. With 2 or more a corrupt one never leaves a run without another.
        every: those of a step that this number divides; None for no such rule.
        best: the n of least held-out loss; 0 for no such rule.
    """

    last: PositiveInt | None = 2
    every: PositiveInt | None = None
    best: NonNegativeInt = 0


Retention = Annotated[
    RetentionPolicy, record(RetentionPolicy, "a RetentionPolicy, as checkpoints.RetentionPolicy(last=2) is")
]
"""A RetentionPolicy that keeps something."""
_RETENTION = RetentionPolicy()


def _held_out_loss(metrics: Any) -> float:
    return metrics[METRIC]


def _policy(keep: RetentionPolicy) -> Any:
    rules: list[Any] = [checkpoint_managers.LatestN(keep.last)]
    if keep.every is not None:
        rules.append(checkpoint_managers.EveryNSteps(keep.every))
    if keep.best:
        best = checkpoint_managers.BestN(
            get_metric_fn=_held_out_loss, reverse=True, n=keep.best, keep_checkpoints_without_metrics=False
        )
        rules.append(best)
    return checkpoint_managers.AnyPreservationPolicy(rules)


@checked
def all_steps(folder: Path) -> list[int]:
    """The steps of all published checkpoints in the folder, the newest first."""
    if not Path(folder).is_dir():
        return []
    return sorted(ocp.utils.checkpoint_steps(Path(folder).absolute()), reverse=True)


@checked
def latest_step(folder: Path) -> int | None:
    """The step of the newest published checkpoint in the folder, or None."""
    return next(iter(all_steps(folder)), None)


_ARRAY = ".zarray"


def read_each(folder: Path, only: Container[str] | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of a stored tree, or some, with their places in it, as of ``trees.places``, in the host's memory.

    They are read one by one, as they are asked for, and without Orbax, whose readers keep some 400 small objects of
    each checkpoint for ever.
    """
    base = _base(folder)
    keys = ts.KvStore.open(base).result().list().result()
    paths = [key.removesuffix(_ARRAY) for key in map(bytes.decode, keys) if key.rpartition("/")[2] == _ARRAY]
    names = {path: path.removesuffix("/") for path in paths}
    for path, name in names.items():
        if only is None or name in only:
            yield name, open_array(folder, path).read().result()


def _base(folder: Path) -> dict[str, Any]:
    return {"driver": "ocdbt", "base": f"file://{Path(folder).absolute()}/"}


def open_array(folder: Path, place: str) -> ts.TensorStore:
    """An array of a stored tree, by its place in it, of which nothing is read yet."""
    store = {"driver": "zarr", "kvstore": _base(folder) | {"path": place}}
    return ts.open(store, read=True, open=True).result()


class Writer:
    """Writes checkpoints into a folder, in the background; a context manager.

    A checkpoint is read back before it is published and before an older one is removed: one whose arrays do not have
    the checksums of the state that was given never replaces another. Leaving the context, or ``wait()``, waits for
    the save under way. A save that was cut off leaves a temporary folder, which is never read, and removed here.

    Args:
        folder: where to write; made if need be.
        keep: which checkpoints stay.

    Raises:
        CheckpointError: the folder cannot be made or listed.
    """

    @checked
    def __init__(self, folder: Path, keep: Retention = _RETENTION) -> None:
        self._folder = Path(os.path.abspath(folder))  # noqa: PTH100
        self._underway: tuple[int, dict[str, tuple[str, str]]] | None = None
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_policy(keep),
            best_fn=_held_out_loss if keep.best else None,
            best_mode="min",
            cleanup_tmp_directories=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._verify),
        )
        try:
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        except OSError as error:
            raise CheckpointError(f"checkpoints {folder} cannot be opened: {reason(error)}") from error
        self._failures = commit_failures(self._manager)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.wait()
        except CheckpointError:
            if kind is None:
                raise
        finally:
            if jax.process_count() == 1 or not self._failures:
                self._manager.close()

    @checked
    def save(
        self,
        step: NonNegativeInt,
        tree: StorableTree,
        metadata: JSONMapping,
        held_out_loss: Annotated[float, Contract(require_scalar)] | None = None,
    ) -> None:
        """Starts to save a tree of arrays and returns; its arrays may be donated at once.

        Args:
            step: its number in the folder.
            tree: such as a training state.
            metadata: of JSON, to lie beside it.
            held_out_loss: by which the best are kept.

        Raises:
            CheckpointError: this save cannot be started, or the one before it failed; nothing older is lost.
        """
        self.wait()
        step, tree = operator.index(step), stored(tree)
        sums = checksums(flatten_with_names(tree))
        self._underway = step, {name: (place, sums[name]) for name, place in places(tree).items()}
        record = with_digest(metadata, step, sums)
        items = {STATE: ocp.args.StandardSave(tree), METADATA: ocp.args.JsonSave(record)}
        metrics = None if held_out_loss is None else {METRIC: held_out_loss}
        try:
            self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics, force=True)
        except (OSError, ValueError, RuntimeError) as error:
            self._forget(error)

    def wait(self) -> None:
        """Waits until the save under way is published.

        Raises:
            CheckpointError: it failed: it could not be written, or did not read back as it was given. Of several
                processes the others wait for this one until they are ended.
        """
        if self._underway is None:
            return
        try:
            wait_for_commit(self._manager, self._failures)
        except Exception as error:
            self._forget(error)
        self._underway = None

    def _forget(self, error: Exception) -> None:
        step, _ = self._underway or (None, None)
        self._underway = None
        for draft in self._temporaries(step):
            shutil.rmtree(draft, ignore_errors=True)
        if jax.process_count() == 1:
            with contextlib.suppress(OSError):
                self._manager.reload()
        raise CheckpointError(f"checkpoint {self._folder / str(step)} was not written: {reason(error)}") from error

    def _temporaries(self, step: int | None) -> list[Path]:
        return list(self._folder.glob(f"{step}.orbax-checkpoint-tmp*"))

    def _verify(self) -> None:
        """Compares what was written with what was given, in the background, before it is published."""
        step, expected = self._underway or (None, {})
        folder = next(iter(self._temporaries(step)), self._folder / str(step))
        read = {name: host_checksum(array) for name, array in read_each(folder / STATE)}
        wrong = [name for name, (place, given) in expected.items() if read.get(place) != given]
        if wrong:
            raise CheckpointError(f"{wrong[0]} does not read back as it was given")
