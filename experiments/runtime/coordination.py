"""JAX's coordination service: how processes join it, and a table of texts that all of them read and write."""

import contextlib
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, Any, NoReturn

import jax
from jax._src import distributed as _distributed
from jax._src.lib import _jax

from experiments.runtime import aborts, heartbeats

_PREFIX = "cfgjax"
_STANDARD_ERROR = 2
_CONNECT = 2.0
_JAX_SECONDS = 100
"""JAX's own heartbeat, which aborts without a word of who is missing, is never the shorter one."""
_MARGIN = 5
"""Seconds for which the others wait longer than process 0, which knows who is missing and tells them."""


def _client() -> Any:
    return _distributed.global_state.client


def put(key: str, text: str) -> None:
    """Writes a text, in place of an earlier one.

    Raises:
        jax.errors.JaxRuntimeError: process 0 does not answer.
    """
    _client().key_value_set(f"{_PREFIX}/{key}", text, allow_overwrite=True)


def get(key: str) -> str | None:
    """The text under a key, None where there is none.

    Raises:
        jax.errors.JaxRuntimeError: process 0 does not answer.
    """
    try:
        return _client().key_value_try_get(f"{_PREFIX}/{key}")
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" not in str(error):
            raise
    return None


def all_of(folder: str) -> dict[str, str]:
    """The texts under all keys FOLDER/NAME, by their names.

    Raises:
        jax.errors.JaxRuntimeError: process 0 does not answer.
    """
    found = _client().key_value_dir_get(f"{_PREFIX}/{folder}/")
    return {key.rpartition("/")[2]: text for key, text in found}


def place() -> tuple[int, int]:
    """Which of the processes this one is, and how many there are by its own command line; no device is started."""
    return _distributed.global_state.process_id, _distributed.global_state.num_processes


def require_free(coordinator: str) -> None:
    """Finds out whether process 0 can listen: jaxlib 0.10.2 joins another command's processes, or crashes, where not.

    Raises:
        OSError: the port is in use.
    """
    port = int(coordinator.rpartition(":")[2])
    is_dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if is_dual else socket.AF_INET
    with socket.create_server(("", port), family=family, dualstack_ipv6=is_dual):
        pass


@contextlib.contextmanager
def _kept_back() -> Iterator[tuple[int, IO[bytes]]]:
    """Inside, what is written to standard error, by C++ too, waits in a file; with it, where it would have gone."""
    terminal = os.dup(_STANDARD_ERROR)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), _STANDARD_ERROR)
        try:
            yield terminal, file
        finally:
            os.dup2(terminal, _STANDARD_ERROR)
            os.close(terminal)
            file.seek(0)
            with contextlib.suppress(OSError):
                os.write(_STANDARD_ERROR, file.read())


def missing(said: str) -> list[int]:
    """The processes that did not join, by the words of the service.

    >>> missing("# of tasks that reached the barrier: 2/4. Some timed out task names: 3, 1")
    [1, 3]
    """
    _, _, names = said.partition("timed out task names:")
    return sorted({int(number) for number in re.findall(r"\d+", re.split(r"[^\d,\s]", names, maxsplit=1)[0])})


def _not_joined(said: str, seconds: int, coordinator: str | None) -> str:
    """The line with which a process ends that waited in vain for the others."""
    absent, why = missing(said), ""
    if "incarnation" in said:
        who = "two processes joined as the same one"
    elif absent:
        who = f"process {', '.join(map(str, absent))} did not join"
    else:
        why = "" if coordinator is None else _of_process_0(coordinator)
        who = "process 0 did not join" if why else "not all processes joined"
    start = "start the same command on all processes again"
    return f"{who} within {seconds} s (--join-seconds){why and ': '}{why}; {start}"


def _of_process_0(coordinator: str) -> str:
    """What keeps this process from process 0, if anything does."""
    host, _, port = coordinator.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT):
            return ""
    except socket.gaierror:
        return f"{host} is not known here"
    except OSError:
        return f"nothing answers at {coordinator}"


def _initialize(coordinator: str | None, number: int | None, index: int | None, seconds: int, silence: float) -> None:
    """JAX's own way to join, whose service is told besides how long it waits for all: it then names the missing."""
    make = _jax.get_distributed_runtime_service

    def service(*args: Any, **settings: Any) -> Any:
        return make(*args, **settings, cluster_register_timeout=seconds)

    _jax.get_distributed_runtime_service = service
    try:
        jax.distributed.initialize(
            coordinator, number, index,
            initialization_timeout=seconds + _MARGIN,
            heartbeat_timeout_seconds=max(_JAX_SECONDS, int(4 * silence)),
        )  # fmt: skip
    finally:
        _jax.get_distributed_runtime_service = make


def join(
    coordinator: str | None,
    number: int | None,
    index: int | None,
    meanwhile: Callable[[], None],
    seconds: int,
    silence: float,
) -> None:
    """Joins the other processes; where not all are there in time, ends this process with exit code 76 and a line.

    It waits in another thread, as signals reach Python only where the main one waits in Python.

    Args:
        coordinator: address of process 0, None where the cluster tells it.
        number: of processes, or None.
        index: which of them this one is, or None.
        meanwhile: called while it waits; what it raises ends the wait.
        seconds: to wait for all.
        silence: seconds after which one is held to be dead; JAX's own limit is longer.

    Raises:
        ValueError: arguments that are missing, and that no cluster tells.
        RuntimeError: devices were used before.
    """
    found: list[Exception] = []

    def work() -> None:
        try:
            _initialize(coordinator, number, index, seconds, silence)
        except Exception as error:
            found.append(error)

    with _kept_back() as (terminal, file):

        def end() -> NoReturn:
            file.seek(0)
            line = _not_joined(file.read().decode(errors="replace"), seconds, coordinator)
            with contextlib.suppress(OSError):
                os.write(terminal, f"{line}\n".encode())
            os._exit(heartbeats.FAILED)

        aborts.on_abort(end)
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(0.1)
            meanwhile()
        aborts.off()
    for error in found:
        raise error


def number_of_processes(seconds: float) -> int:
    """How many processes there are, by process 0, whose number JAX takes.

    Raises:
        TimeoutError: process 0 does not tell within the time.
    """
    index, own = place()
    if index == 0:
        put("number", str(own))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        text = get("number")
        if text is not None:
            return int(text)
        time.sleep(0.05)
    raise TimeoutError("process 0 does not answer")
