#!/usr/bin/env bash
# orbax-checkpoint 0.12.8: a key with a dot and a nested key of the same spelling are saved as one; numpy targets are not checked.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check jax==0.10.2 numpy==2.4.6 orbax-checkpoint==0.12.8
"$place/venv/bin/python" - <<'EOF'
import logging
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

logging.disable(logging.WARNING)
print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("jax", "orbax-checkpoint")))
place, checkpointer = Path(tempfile.mkdtemp()), ocp.StandardCheckpointer()


def saved(name, tree):
    checkpointer.save(place / name, tree)
    checkpointer.wait_until_finished()
    return place / name


given = {"a.b": jnp.ones(2), "a": {"b": jnp.full(2, 2.0)}}
found = checkpointer.restore(saved("dots", given))
print("\nsaved   ", {"a.b": given["a.b"].tolist(), "a": {"b": given["a"]["b"].tolist()}})
print("restored", {"a.b": found["a.b"].tolist(), "a": {"b": found["a"]["b"].tolist()}})
assert np.array_equal(found["a.b"], found["a"]["b"])

folder = saved("numbers", {"count": jnp.arange(3) + 300})
found = checkpointer.restore(folder, {"count": np.zeros(7, np.uint8)})["count"]
print(f"saved    int32 [300, 301, 302]; restored into a numpy array of 7 uint8: {found.dtype} {found.tolist()}")
assert found.tolist() == [44, 45, 46]
try:
    checkpointer.restore(folder, {"count": jnp.zeros(7, jnp.uint8)})
except ValueError as error:
    print("restored into a jax array of 7: ValueError,", str(error).splitlines()[0][:80])
else:
    raise SystemExit("a jax array of another shape is accepted")
print("\nA user loses one of the two leaves, or the high bytes of his counts, and no line says so.")
EOF
