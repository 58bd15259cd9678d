#!/usr/bin/env bash
# hackable_diffusion 1.0.1: AdjustedDDIMStep does not tend to the law of the data, however many steps. Needs Python 3.12.
set -euo pipefail
for python in "${PYTHON:-python3}" python3.12 python3.13 "$HOME"/.pyenv/versions/3.12.*/bin/python; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && break
    python=
done
[ -n "$python" ] || { echo "needs Python 3.12 or newer; name one with PYTHON=..." >&2; exit 2; }
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$python" -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check jax==0.12.0.1 flax==0.12.12 einops immutabledict typeguard lark
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check --no-deps kauldron==1.4.4 hackable_diffusion==1.0.1
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import jax
import jax.numpy as jnp
import numpy as np
from hackable_diffusion.lib.corruption.gaussian import GaussianProcess
from hackable_diffusion.lib.corruption.schedules import RFSchedule
from hackable_diffusion.lib.sampling.base import StepInfo
from hackable_diffusion.lib.sampling.gaussian_step_sampler import AdjustedDDIMStep, DDIMStep

names = ("jax", "kauldron", "hackable_diffusion")
print("python", platform.python_version(), *(f"{name} {version(name)}" for name in names))
process, count = GaussianProcess(schedule=RFSchedule()), 4_000
noise = jax.random.normal(jax.random.key(0), (count, 1))


def denoised(x, time, mean, deviation):
    """E[data | x] of data N(mean, deviation^2) at x = (1 - time) data + time noise: exact."""
    keep = 1 - time
    return mean + keep * deviation**2 / (keep**2 * deviation**2 + time**2) * (x - keep * mean)


def law(step, updates, mean, deviation):
    times = jnp.linspace(1 - 1e-6, 1e-6, updates + 1)
    info = [StepInfo(step=jnp.array(i), time=jnp.full((count, 1), time), rng=jax.random.key(i)) for i, time in enumerate(times)]
    state = step.initialize(noise, info[0])
    for i in range(updates):
        guess = {"x0": denoised(state.xt, times[i], mean, deviation)}
        move = step.finalize if i == updates - 1 else step.update
        state = move(guess, state, info[i + 1])
    return round(float(state.xt.mean()), 3), round(float(state.xt.std()), 3)


ddim, adjusted = DDIMStep(corruption_process=process, stoch_coeff=0.0), AdjustedDDIMStep(corruption_process=process)
print("\nrectified-flow schedule, exact denoiser; (mean, deviation) of the samples:")
for mean, deviation in ((1.0, 0.3), (5.0, 0.0)):
    print(f"  data N({mean}, {deviation}^2)")
    for updates in (10, 40, 80):
        found = law(ddim, updates, mean, deviation), law(adjusted, updates, mean, deviation)
        print(f"    {updates:3} updates: DDIM {found[0]}, adjusted DDIM {found[1]}")
        assert abs(found[0][0] - mean) < 0.02
        if deviation == 0.0:
            np.testing.assert_allclose(found[1][0], mean * (1 - 1 / updates), rtol=0.02)
        else:
            assert found[1][0] < 0.7 and found[1][1] < 0.26
print("\nA user gets samples drawn towards 0; for a denoiser that always says 5 the last step multiplies it by the old alpha.")
EOF
