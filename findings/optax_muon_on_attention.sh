#!/usr/bin/env bash
# optax 0.2.8 with flax 0.12.8: muon orthogonalises attention's biases, and gives its kernels Adam at muon's rate.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check jax==0.10.2 numpy==2.4.6 optax==0.2.8 flax==0.12.8
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("jax", "optax", "flax")))
rate = 0.02
module = linen.MultiHeadDotProductAttention(num_heads=4)
parameters = module.init(jax.random.key(0), jnp.ones((1, 5, 32)))["params"]
leaves, shape = jax.tree.flatten(parameters)
keys = jax.random.split(jax.random.key(1), len(leaves))
gradients = jax.tree.unflatten(shape, [jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves)])
optimizer = optax.contrib.muon(rate)
updates, _ = optimizer.update(gradients, optimizer.init(parameters), parameters)
print(f"\nfirst update of optax.contrib.muon({rate}) for random gradients, divided by the rate:")
for name in ("query", "key", "value"):
    kernel, bias = np.asarray(updates[name]["kernel"]) / rate, np.asarray(updates[name]["bias"]) / rate
    singular = np.linalg.svd(bias, compute_uv=False)
    print(f"  {name:5} kernel {kernel.shape}: every |entry| in [{np.abs(kernel).min():.3f}, {np.abs(kernel).max():.3f}]"
          f"; bias {bias.shape}: singular values {np.round(singular, 2)}")
    assert np.ptp(np.abs(kernel)) < 1e-2 and singular.max() / singular.min() < 2.5
given = np.linalg.svd(np.asarray(gradients["query"]["bias"]), compute_uv=False)
print(f"  (the bias gradient's own singular values: {np.round(given, 2)}; a matrix orthogonalised has equal ones)")
print("\nA user of muon trains attention's matrices by Adam, at a rate meant for muon, and orthogonalises its biases.")
EOF
