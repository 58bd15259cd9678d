#!/usr/bin/env bash
# optax 0.2.8: MultiSteps around apply_if_finite never updates again after one NaN gradient.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check jax==0.10.2 numpy==2.4.6 optax==0.2.8
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import jax.numpy as jnp
import optax

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("jax", "optax")))
print("\nsgd(.1), gradients 1, NaN, then 1 forever, two gradients an update; the parameter after 2, 6, 12, 22 gradients:")


def run(optimizer):
    parameter, found = jnp.zeros(()), {}
    state = optimizer.init(parameter)
    for i, gradient in enumerate([1.0, float("nan")] + [1.0] * 20, 1):
        update, state = optimizer.update(jnp.asarray(gradient), state, parameter)
        parameter = optax.apply_updates(parameter, update)
        found[i] = round(float(parameter), 3)
    return [found[i] for i in (2, 6, 12, 22)]


inside = run(optax.MultiSteps(optax.apply_if_finite(optax.sgd(0.1), 100), 2))
outside = run(optax.apply_if_finite(optax.MultiSteps(optax.sgd(0.1), 2), 100))
print("  MultiSteps(apply_if_finite(sgd)):", inside)
print("  apply_if_finite(MultiSteps(sgd)):", outside)
assert inside == [0.0] * 4 and outside[-1] < -0.9
print("\nA user's training stands still for ever after one bad batch, with finite losses and gradients to look at.")
EOF
