#!/usr/bin/env bash
# diffusers 0.42.1: DEIS with flow sigmas never reaches level 0; its last step does nothing and 1/n of the noise stays.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6 scipy==1.17.1 diffusers==0.42.1
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import torch
from diffusers import DEISMultistepScheduler, DPMSolverMultistepScheduler

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("torch", "scipy", "diffusers")))
print("\ndata N(1, .3^2), noise N(0, 1), exact velocity; the exact flow takes noise e to 1 + .3 e")
mean, deviation = 1.0, 0.3
noise = torch.tensor([-1.5, -0.4, 0.3, 1.1], dtype=torch.float64)


def velocity(x, level):
    """E[noise - data | x], as a flow model predicts it, at x = (1 - level) data + level noise."""
    keep, variance = 1 - level, (1 - level) ** 2 * deviation**2 + level**2
    return -mean + (level - keep * deviation**2) / variance * (x - keep * mean)


def largest_error(kind, order, steps):
    scheduler = kind(prediction_type="flow_prediction", use_flow_sigmas=True, solver_order=order)
    scheduler.set_timesteps(steps)
    x = noise
    for i, step in enumerate(scheduler.timesteps):
        before, x = x, scheduler.step(velocity(x, float(scheduler.sigmas[i])), step, x, return_dict=False)[0]
    return float((x - (mean + deviation * noise)).abs().max()), float((x - before).abs().max()), scheduler.sigmas


for steps in (4, 16, 64):
    *_, sigmas = largest_error(DEISMultistepScheduler, 2, steps)
    assert sigmas[-1] == sigmas[-2] and abs(float(sigmas[-1]) - 0.999 / steps) < 1e-6
    print(f"\nDEIS, {steps} steps: last levels {[round(float(s), 5) for s in sigmas[-3:]]}")
    for order in (1, 2, 3):
        error, moved, _ = largest_error(DEISMultistepScheduler, order, steps)
        print(f"  order {order}: the last step moves x by {moved:.1e}; largest error {error:.1e}")
        assert moved < 1e-6 and 0.2 < error * steps < 2
    other = largest_error(DPMSolverMultistepScheduler, 2, steps)[0]
    print(f"  DPM++ order 2, whose grid ends at 0: {other:.1e}")
assert other < 0.3 * error
print("\nA user gets samples with 1/n of the noise left in them, and first order whatever solver_order says.")
EOF
