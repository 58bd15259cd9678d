#!/usr/bin/env bash
# flaxdiff 0.2.11: guidance scale 0 is the labelled model, .001 almost the null one.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check jax==0.10.2 flax==0.12.8 numpy==2.4.6 einops tqdm
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check --no-deps flaxdiff==0.2.11
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import jax.numpy as jnp
from flax import linen
from flaxdiff.inputs import DiffusionInputConfig
from flaxdiff.predictors import EpsilonPredictionTransform
from flaxdiff.samplers.ddim import DDIMSampler
from flaxdiff.schedulers import CosineNoiseScheduler

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("jax", "flax", "flaxdiff")))


class Label:
    """A condition whose null input is 0."""

    def get_unconditional(self):
        return jnp.zeros((1, 1))


class Network(linen.Module):
    """A noise prediction that is its label: 1 for the label, 0 for null."""

    @linen.compact
    def __call__(self, x, time, label):
        return jnp.ones_like(x) * label[:, :, None, None]


inputs = DiffusionInputConfig("image", (1, 1, 1), [Label()])
x, label = jnp.zeros((1, 1, 1, 1)), jnp.ones((1, 1))
found = {}
for scale in (0.0, 0.001, 0.5, 1.0, 3.0):
    sampler = DDIMSampler(Network(), CosineNoiseScheduler(1000), EpsilonPredictionTransform(), inputs, guidance_scale=scale)
    found[scale] = float(sampler.sample_model({}, x, jnp.array([500]), label)[2].squeeze())
print("\nprediction of a network that says 1 with its label and 0 without:")
for scale, value in found.items():
    print(f"  guidance_scale {scale}: {value:.3f}")
    assert abs(value - (scale or 1.0)) < 1e-6
print("\nA user who sweeps the scale finds the labelled model at 0 and at 1, and a jump to the null one between.")
EOF
