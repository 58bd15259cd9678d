#!/usr/bin/env bash
# flaxdiff 0.2.11: two samplers do not tend to the law of the data on its cosine schedule, and one remembers its last call.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check jax==0.10.2 flax==0.12.8 numpy==2.4.6 einops tqdm
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check --no-deps flaxdiff==0.2.11
"$place/venv/bin/python" - <<'EOF'
import contextlib
import io
import platform
from importlib.metadata import version

import jax
import jax.numpy as jnp
from flax import linen
from flaxdiff.inputs import DiffusionInputConfig
from flaxdiff.predictors import EpsilonPredictionTransform
from flaxdiff.samplers.ddim import DDIMSampler
from flaxdiff.samplers.euler import EulerAncestralSampler, EulerSampler
from flaxdiff.samplers.multistep_dpm import MultiStepDPM
from flaxdiff.schedulers import CosineNoiseScheduler
from flaxdiff.utils import RandomMarkovState

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("jax", "flax", "flaxdiff")))
schedule, mean, deviation = CosineNoiseScheduler(1000), 0.2, 0.3


class Exact(linen.Module):
    """E[noise | x] of data N(.2, .3^2), a number a pixel."""

    @linen.compact
    def __call__(self, x, time):
        signal, noise = schedule.get_rates(time)
        return noise * (x - signal * mean) / (signal**2 * deviation**2 + noise**2)


def made(kind):
    return kind(Exact(), schedule, EpsilonPredictionTransform(), DiffusionInputConfig("image", (32, 32, 3), []))


def samples(sampler, steps):
    with contextlib.redirect_stderr(io.StringIO()):
        return sampler.generate_samples(
            {}, 8, 32, diffusion_steps=steps, start_step=980, rngstate=RandomMarkovState(jax.random.key(0))
        )


print(f"\n(mean, deviation) of the samples after 10, 50, 250 steps; right is ({mean}, {deviation}):")
for kind in (DDIMSampler, EulerSampler, EulerAncestralSampler, MultiStepDPM):
    drawn = [samples(made(kind), steps) for steps in (10, 50, 250)]
    found = [(round(float(x.mean()), 3), round(float(x.std()), 3)) for x in drawn]
    print(f"  {kind.__name__:22}", *found)
    if kind is MultiStepDPM:
        assert found[2][0] < 0.15 and found[2][1] < 0.28
    elif kind is EulerAncestralSampler:
        assert found[2][0] > 0.215
    else:
        assert abs(found[2][0] - mean) < 0.01 and abs(found[2][1] - deviation) < 0.01

one = made(MultiStepDPM)
first, second = samples(one, 10), samples(one, 10)
print(f"MultiStepDPM called twice with one seed: largest difference {float(jnp.abs(first - second).max()):.3e}")
assert float(jnp.abs(first - second).max()) > 1e-6
print("\nA user of these samplers gets samples of another mean and spread, and other samples at the second call.")
EOF
