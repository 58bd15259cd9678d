#!/usr/bin/env bash
# diffusers 0.42.1: the stochastic settings of the flow schedulers do not keep the law of the data.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6 diffusers==0.42.1
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("torch", "diffusers")))
mean, deviation, count = 1.0, 0.3, 20_000


def velocity(x, level):
    """E[noise - data | x] of data N(1, .3^2) at x = (1 - level) data + level noise: exact."""
    keep, variance = 1 - level, (1 - level) ** 2 * deviation**2 + level**2
    return -mean + (level - keep * deviation**2) / variance * (x - keep * mean)


def law(scheduler, steps, **settings):
    generator = torch.Generator().manual_seed(0)
    scheduler.set_timesteps(steps)
    x = torch.randn(count, generator=generator)
    for step in scheduler.timesteps:
        level = float(step) / 1000
        x = scheduler.step(velocity(x, level), step, x, generator=generator, return_dict=False, **settings)[0]
    return round(float(x.mean()), 3), round(float(x.std()), 3)


print(f"\nexact velocity; right is (mean, deviation) = ({mean}, {deviation})")
print("FlowMatchHeun, s_churn:")
for churn in (0.0, 10.0, 40.0):
    found = [law(FlowMatchHeunDiscreteScheduler(), steps, s_churn=churn) for steps in (16, 64)]
    print(f"  s_churn {churn:4}: 16 steps {found[0]}, 64 steps {found[1]}")
    if churn == 0:
        assert abs(found[1][0] - 1) < 0.02 and abs(found[1][1] - 0.3) < 0.01
    else:
        assert found[0][0] > 1.35 and found[1][0] > 1.35
assert found[1][0] > found[0][0] + 0.1

print("FlowMatchEuler, stochastic_sampling=True:")
for steps in (16, 64, 256, 1000):
    found = law(FlowMatchEulerDiscreteScheduler(stochastic_sampling=True), steps)
    print(f"  {steps:4} steps: {found}")
    assert found[1] < 0.22
plain, churned = (law(FlowMatchEulerDiscreteScheduler(), 16, s_churn=churn, s_noise=2.0) for churn in (0.0, 40.0))
print(f"FlowMatchEuler, s_churn 0 and 40: {plain} and {churned}, equal")
assert plain == churned
print("\nA user who turns noise on to repair errors gets another law, and more steps do not mend it; Euler's s_churn does nothing.")
EOF
