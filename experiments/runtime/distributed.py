"""One command on one device, on eight, or on many hosts: starting together, agreeing, and writing once."""

import contextlib
import math
import os
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import jax
import numpy as np
import tyro
from jax.experimental import multihost_utils

from cfgjax.checkpoints import CheckpointError
from cfgjax.data import DataError
from experiments.cli import main as cli
from experiments.cli.main import UserError
from experiments.cli.options import optional
from experiments.runtime import coordination, peers
from experiments.runtime.heartbeats import SUSPECTED
from experiments.runtime.peers import PeerFailedError

T = TypeVar("T")

LAG = 2
"""Calls after which an answer is known: the device may be so many dispatches behind the host."""

_MOST_BYTES = 1024
_OF_HOST = "host's: "
_DAY = 86_400
"""Seconds beyond which no wait is meant; JAX takes its own in 32 bits."""

_COUNTS = "SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "MEGASCALE_NUM_SLICES"
"""Variables in which clusters say of how many processes, or slices of TPUs, this one is a part."""


@dataclass(frozen=True)
class Launch:
    """How this process finds the others of its command. One process needs none of it."""

    coordinator: Annotated[str | None, optional("HOST:PORT", "the cluster tells it, or there is one process")] = None
    """Address of process 0."""
    num_processes: Annotated[int | None, optional("INT", "the cluster tells it")] = None
    """Number of processes."""
    process_id: Annotated[int | None, optional("INT", "the cluster tells it")] = None
    """Which of the processes this one is, from 0."""
    distributed: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Ask the cluster for these three: under srun, mpirun and on TPU pods it is done unasked."""
    join_seconds: int = 300
    """Seconds for which a process waits for all others to be there: as long as the cluster takes to start them."""
    heartbeat_seconds: float = 30.0
    """Seconds of silence after which a process is held to be dead or cut off, and all others end with exit code 76:
    more than a full disk, a lost packet or a busy host keeps one silent, less than an hour of the others is worth."""
    stuck_seconds: Annotated[float | None, optional("FLOAT", "without end")] = None
    """Seconds for which one process may do the same while others do something else, such as read from a disk that does
    not answer: more than a restore, a compilation or a report takes."""


def is_one_of_several(environment: Mapping[str, str]) -> bool:
    """Whether the environment says that a cluster started this process together with others."""
    counts = [environment.get(name, "1") for name in _COUNTS]
    hosts = environment.get("TPU_PROCESS_ADDRESSES", environment.get("TPU_WORKER_HOSTNAMES", ""))
    return any(count.isdigit() and int(count) > 1 for count in counts) or "," in hosts


def _require_seconds(launch: Launch) -> None:
    if not 1 <= launch.join_seconds <= _DAY:
        raise UserError(f"join_seconds must be in 1..{_DAY}, got {launch.join_seconds}")
    if not SUSPECTED < launch.heartbeat_seconds <= _DAY:
        raise UserError(
            f"heartbeat_seconds must be above {SUSPECTED:g}, and at most {_DAY}, got {launch.heartbeat_seconds}"
        )
    if launch.stuck_seconds is not None and not launch.stuck_seconds > 0:
        raise UserError(f"stuck_seconds must be above 0, got {launch.stuck_seconds}")


def _require_together(launch: Launch) -> None:
    given = {"coordinator": launch.coordinator, "num_processes": launch.num_processes, "process_id": launch.process_id}
    missing = [name for name, value in given.items() if value is None]
    if missing and len(missing) < len(given):
        raise UserError(f"{missing[0]} must be given, too: coordinator, num_processes and process_id go together")
    if launch.coordinator is None or launch.num_processes is None or launch.process_id is None:
        return
    host, _, port = launch.coordinator.rpartition(":")
    if not host or "/" in host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UserError(f"coordinator must be host:port, got {launch.coordinator!r}")
    if launch.num_processes < 1:
        raise UserError(f"num_processes must be at least 1, got {launch.num_processes}")
    if not 0 <= launch.process_id < launch.num_processes:
        raise UserError(
            f"process_id must be in 0..{launch.num_processes - 1}, of num_processes, got {launch.process_id}"
        )


def start(launch: Launch, meanwhile: Callable[[], None] = lambda: None) -> None:
    """Joins the other processes, before the first computation; all but the first fall silent on standard output.

    Args:
        launch: how they find each other.
        meanwhile: called while it waits for them; what it raises ends the wait.

    Raises:
        UserError: flags that do not fit together, or a cluster that does not tell what is missing.
    """
    _require_seconds(launch)
    _require_together(launch)
    wanted = launch.coordinator is not None or launch.distributed or is_one_of_several(os.environ)
    if not wanted or jax.distributed.is_initialized():
        return
    jax.config.update("jax_enable_preemption_service", False)  # it catches SIGTERM, and the process would go on
    cli.join(_Joining())
    try:
        if launch.coordinator is not None and launch.process_id == 0:
            coordination.require_free(launch.coordinator)
        coordination.join(
            launch.coordinator, launch.num_processes, launch.process_id, meanwhile,
            launch.join_seconds, launch.heartbeat_seconds,
        )  # fmt: skip
        peers.begin(launch.heartbeat_seconds, math.inf if launch.stuck_seconds is None else launch.stuck_seconds)
    except TimeoutError as error:
        raise PeerFailedError(f"{error}; start the same command on all processes again") from None
    except OSError:
        raise UserError(
            f"coordinator {launch.coordinator} is in use on this host: another command runs there, "
            "or an earlier one has not ended; wait, or choose another port"
        ) from None
    except (ValueError, RuntimeError) as error:
        message = " ".join(str(error).split())[:300]
        raise UserError(
            f"the processes did not find each other ({message}); give coordinator, num_processes and process_id"
        ) from error
    if not peers.is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123


class _Joining(cli.Alone):
    """The company of a process that waits for the others: its thread in C++ does not end by itself."""

    def leave(self, code: int, message: str) -> None:
        """Ends this process."""
        sys.stderr.flush()
        os._exit(code)


def is_process_0() -> bool:
    """Whether this is the process that writes what is written once."""
    return jax.process_index() == 0


def warn(message: str) -> None:
    """Says something on standard error, once."""
    if is_process_0():
        cli.warn(message)


@contextlib.contextmanager
def own_folder(folder: Path) -> Iterator[Path]:
    """The folder itself for the first process; for the others one that is thrown away with all they write."""
    if is_process_0():
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


def agree(work: Callable[[], T]) -> T:
    """What the work gives, or the first mistake that any of the processes met, on all of them.

    Without it one process would end with its message while the others wait for it. The work itself must not wait
    for other processes.

    Raises:
        UserError: a mistake of the user on some process.
        PeerFailedError: a file that the system of some process's host does not read or write.
    """
    if jax.process_count() == 1:
        return work()
    result, message = None, ""
    try:
        result = work()
    except (UserError, DataError, CheckpointError, OSError) as mistake:
        message = (_OF_HOST if peers.is_of_host(mistake) else "") + (str(mistake) or type(mistake).__name__)
    for index, said in enumerate(all_texts(message)):
        if said.startswith(_OF_HOST):
            raise peers.failure(index, said.removeprefix(_OF_HOST))
        if said:
            raise UserError(f"{peers.name(index)}: {said}")
    return result  # pyrefly: ignore[bad-return]


def all_texts(own: str) -> list[str]:
    """What each process has to say, of a bounded length."""
    if jax.process_count() == 1:
        return [own]
    row, text = np.zeros(_MOST_BYTES, np.uint8), np.frombuffer(own.encode()[:_MOST_BYTES], np.uint8)
    row[: len(text)] = text
    rows = np.asarray(multihost_utils.process_allgather(row))
    return [bytes(each[each > 0]).decode(errors="replace") for each in rows]


def all_true(own: bool) -> bool:
    """Whether all processes say yes."""
    return set(all_texts("yes" if own else "no")) == {"yes"}


def on_process_0(work: Callable[[], T]) -> T | None:
    """What the work gives on the first process, None on the others; its mistake on all, as ``together``."""
    return agree(lambda: work() if is_process_0() else None)


def any_true(own: bool) -> bool:
    """Whether any process says yes."""
    return not all_true(not own)


class AnyTrue:
    """Asked at every step by every process: whether any of them has said yes, the same answer on all at the same step.

    One process knows at once. Several know LAG calls later, without waiting for the device.
    """

    def __init__(self) -> None:
        self._underway: deque[Any] = deque()
        self._total = jax.pmap(lambda said: jax.lax.psum(said, "all"), "all", out_axes=None)

    def __call__(self, says: bool) -> bool:
        """The answer, once this process has said what it says."""
        if jax.process_count() == 1:
            return says
        self._underway.append(self._total(np.full(jax.local_device_count(), says, np.int32)))
        return len(self._underway) > LAG and bool(np.asarray(self._underway.popleft()) > 0)


def gathered(own: np.ndarray) -> np.ndarray:
    """The rows of all processes, in the order of the processes."""
    if jax.process_count() == 1:
        return own
    return np.concatenate(list(np.asarray(multihost_utils.process_allgather(own))))


def whole(array: Any) -> np.ndarray:
    """The numbers of an array on the host, of one that is sharded over all processes, too."""
    if getattr(array, "is_fully_addressable", True) or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))
