#!/usr/bin/env bash
# numpy 2.4.6 with ml_dtypes 0.6.0: a bfloat16 array saved as .npy comes back as two-byte voids.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check numpy==2.4.6 ml_dtypes==0.6.0
"$place/venv/bin/python" - <<'EOF'
import io
import platform
from importlib.metadata import version

import ml_dtypes
import numpy as np

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("numpy", "ml_dtypes")))


def read_back(array):
    file = io.BytesIO()
    np.save(file, array)
    file.seek(0)
    return np.load(file)


print("\nwhat is saved by np.save, and what np.load gives:")
for kind in (np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
    found = read_back(np.array([1.5, -2.0], kind))
    print(f"  {np.dtype(kind)} -> {found.dtype}: {found.tolist()}")
    if kind is np.float16:
        assert found.dtype == np.float16
    else:
        assert found.dtype.kind == "V"
        assert found.view(kind).astype(np.float32).tolist() == [1.5, -2.0]
print("\nA user's bfloat16 latents are no numbers when read again, unless the reader knows to view them as bfloat16.")
EOF
