#!/usr/bin/env bash
# optax 0.2.8: the debiased average of constant bfloat16 ones is .33 after 1,000 steps and .08 after 5,000.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check jax==0.10.2 numpy==2.4.6 optax==0.2.8
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import jax
import jax.numpy as jnp
import optax

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("jax", "optax")))
print("\noptax.ema(.9999, debias=True) of ones; right is 1 at every step:")


def averages(dtype, **settings):
    average, ones, found = optax.ema(0.9999, debias=True, **settings), jnp.ones((), dtype), {}
    update, state = jax.jit(average.update), average.init(ones)
    for i in range(1, 5_001):
        value, state = update(ones, state)
        found[i] = round(float(value), 4)
    return {i: found[i] for i in (1, 100, 1_000, 5_000)}


for name, dtype, settings in (
    ("bfloat16", jnp.bfloat16, {}),
    ("float16", jnp.float16, {}),
    ("bfloat16, accumulator_dtype float32", jnp.bfloat16, {"accumulator_dtype": jnp.float32}),
    ("float32", jnp.float32, {}),
):
    found = averages(dtype, **settings)
    print(f"  {name:36}", found)
    if name == "bfloat16":
        assert found[100] > 1.01 and found[1_000] == 0.3281 and found[5_000] < 0.09
    elif name == "float16":
        assert found[5_000] < 0.7
    else:
        assert all(abs(value - 1) < 5e-3 for value in found.values())
print("\nA user who averages 16-bit parameters samples from a network whose weights are a fraction of the trained ones.")
EOF
