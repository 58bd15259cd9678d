#!/usr/bin/env bash
# bayesflow 2.0.12: the stable consistency model's sampler adds noise of the step before, and then takes it for less.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3}" -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check bayesflow==2.0.12 keras==3.15.1 jax==0.10.2
KERAS_BACKEND=jax JAX_PLATFORMS=cpu "$place/venv/bin/python" - <<'EOF'
import logging
import platform
from importlib.metadata import version

import keras
import numpy as np

logging.disable(logging.WARNING)
from bayesflow.networks import StableConsistencyModel

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("bayesflow", "keras", "jax")))
mean, deviation, count = 1.0, 0.3, 50_000


def data_of(x, t, cos, sin, sqrt):
    """The exact consistency function of x = cos(t) data + sin(t) noise, data N(1, .3^2)."""
    return mean + (x - cos(t) * mean) * deviation / sqrt(cos(t) ** 2 * deviation**2 + sin(t) ** 2)


class Exact(StableConsistencyModel):
    """A model that has learned its law perfectly: only the function that a network stands for is replaced."""

    def consistency_function(self, x, t, conditions=None, training=False, **settings):
        return data_of(x, t, keras.ops.cos, keras.ops.sin, keras.ops.sqrt)


def in_the_paper(times, rng):
    """Algorithm 1 of arXiv 2303.01469 on the same times."""
    x = data_of(rng.standard_normal(count), times[0], np.cos, np.sin, np.sqrt)
    for t in times[1:]:
        x = data_of(np.cos(t) * x + np.sin(t) * rng.standard_normal(count), t, np.cos, np.sin, np.sqrt)
    return x


model, rng = Exact(), np.random.default_rng(0)
model.build((count, 1))
noise = keras.random.normal((count, 1), seed=1)
print(f"\nsamples (mean, deviation) of an exact model of N({mean:g}, {deviation}^2):")
print("steps   bayesflow        the paper's algorithm")
found = {}
for steps in (2, 3, 5, 15, 50, 200):
    samples = np.asarray(model(noise, inverse=True, steps=steps))
    right = in_the_paper(np.asarray(model._discretize_time(steps))[::-1], rng)
    found[steps] = samples.mean(), samples.std()
    print(f"{steps:5d} {samples.mean():7.3f} {samples.std():7.3f} {right.mean():9.3f} {right.std():7.3f}")
    assert abs(right.mean() - mean) < 0.01 and abs(right.std() - deviation) < 0.01
assert abs(found[2][0]) < 0.02 and abs(found[2][1] - 1) < 0.02
assert abs(found[15][0] - 0.88) < 0.02 and abs(found[15][1] - 0.42) < 0.02
assert found[200][0] > 0.99
print("\nA user who samples in few steps gets noise (2 steps: nothing but noise), and with the 15 by default a law 40 % too wide.")
EOF
