#!/usr/bin/env bash
# safetensors 0.8.0: safetensors.numpy writes transposed and Fortran-ordered arrays wrong, without an error.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 safetensors==0.8.0
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import numpy as np
from safetensors.numpy import load, save

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("numpy", "safetensors")))
array = np.arange(6, dtype=np.float32).reshape(2, 3)
print("\nwhat is saved, and what is read back:")
for name, given in (("as it is", array), ("transposed", array.T), ("Fortran order", np.asfortranarray(array))):
    found = load(save({"x": given}))["x"]
    print(f"  {name:13} {given.tolist()} -> {found.tolist()}")
    assert found.shape == given.shape and np.array_equal(found, given) == (name == "as it is")
print("\nA user who carries weights from one layout to the other by .T saves scrambled matrices of the right shape.")
EOF
