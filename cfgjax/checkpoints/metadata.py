"""What lies beside a state: how it was made, its checksums, and a digest over both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib.metadata import version
from typing import Annotated, Any

from cfgjax.checkpoints.checksums import Checksums
from cfgjax.checkpoints.errors import CheckpointError
from cfgjax.checks import require_kind, short_repr
from cfgjax.contracts import Contract

PACKAGES = "cfgjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def require_json(name: str, value: Any) -> None:
    """Raises TypeError for what is no mapping, or holds what JSON does not know."""
    require_kind(name, value, Mapping, "a mapping of JSON")
    try:
        json.dumps(dict(value))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must be a mapping of JSON, got one that is not: {short_repr(error)}") from None


JSONMapping = Annotated[Mapping[str, Any], Contract(require_json)]
"""A mapping that JSON can write."""


def with_digest(given: Mapping[str, Any], step: int, checksums: Checksums) -> dict[str, Any]:
    """The record to be written: what the caller gave, the step, the packages' versions, the checksums, the digest."""
    versions = {package: version(package) for package in PACKAGES}
    record = {"given": dict(given), "step": step, "versions": versions, "checksums": checksums}
    return record | {"digest": _digest(json.loads(json.dumps(record)))}


def check_digest(where: Any, record: Any) -> dict[str, Any]:
    """The record read back, once its digest is found right.

    Raises:
        CheckpointError: a record without digest, or with another one; the message names the folder.
    """
    if not isinstance(record, dict) or "digest" not in record:
        raise CheckpointError(f"checkpoint {where} is corrupt: its metadata have no digest")
    rest = {name: value for name, value in record.items() if name != "digest"}
    if _digest(rest) != record["digest"]:
        raise CheckpointError(f"checkpoint {where} is corrupt: its metadata are not those that were written")
    return rest
