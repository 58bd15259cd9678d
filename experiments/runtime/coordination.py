"""JAX's coordination service as a table of texts that all processes of a command read and write."""

import contextlib
import socket
from typing import Any

import jax
from jax._src import distributed as _distributed

_PREFIX = "cfgjax"


def _client() -> Any:
    return _distributed.global_state.client


def is_there() -> bool:
    """Whether this process has joined others."""
    return _client() is not None


def is_reachable(seconds: float) -> bool:
    """Whether process 0 takes a connection within the time."""
    host, _, port = (_distributed.global_state.coordinator_address or ":0").rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), seconds):
        return True
    return False


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
