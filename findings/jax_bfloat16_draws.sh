#!/usr/bin/env bash
# jax 0.10.2: normal numbers drawn in bfloat16 are 128 values below 3, and a bfloat16 rate of .001 is .0077.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check jax==0.10.2 numpy==2.4.6
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("jax", "numpy")))
print("\na million numbers of jax.random.normal:")
for dtype in (jnp.float32, jnp.float16, jnp.bfloat16):
    x = np.asarray(jax.random.normal(jax.random.key(0), (1_000_000,), dtype).astype(jnp.float32), np.float64)
    values = len(np.unique(x))
    print(f"  {dtype.__name__:9} {values:7,} values in [{x.min():.4f}, {x.max():.4f}], mean {x.mean():.4f}, P(|x| > 3) {np.mean(np.abs(x) > 3):.5f}")
assert values == 128 and (x.min(), x.max()) == (-2.890625, 2.515625) and x.mean() < -0.01
print("how often jax.random.bernoulli is True:")
for rate in (jnp.float32(0.001), jnp.bfloat16(0.001)):
    found = float(jax.random.bernoulli(jax.random.key(0), rate, (1_000_000,)).mean())
    print(f"  rate {float(rate):.5f} as {rate.dtype}: {found:.5f}")
assert 0.0074 < found < 0.0081
print("\nA user who draws a diffusion's noise in its data's type trains on a coarse law without tails, and off 0.")
EOF
