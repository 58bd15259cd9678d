#!/usr/bin/env bash
# flow_matching 1.0.10 with torchdiffeq 0.2.5: dopri5 calls the network beyond t = 1.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6 scipy==1.17.1 torchdiffeq==0.2.5 tqdm flow_matching==1.0.10
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import torch
from flow_matching.solver import ODESolver

names = ("torch", "torchdiffeq", "flow_matching")
print("python", platform.python_version(), *(f"{name} {version(name)}" for name in names))
print("\nlatest time at which ODESolver(...).sample(..., method='dopri5', step_size=None) calls the field on [0, 1]:")


def gaussian(x, t):
    """The straight path's field of data N(1, .3^2): exact on [0, 1]."""
    return 1 + (t * 0.09 - (1 - t)) / (t**2 * 0.09 + (1 - t) ** 2) * (x - t)


def latest(field, **settings):
    times = []

    def watched(x, t):
        times.append(float(t))
        return field(x, t)

    ODESolver(watched).sample(torch.ones(4, 1, dtype=torch.float64), step_size=None, **settings)
    return max(times)


for name, field in (("decay, -x", lambda x, t: -x), ("Gaussian data", gaussian)):
    for tolerance in (1e-3, 1e-5, 1e-7):
        found = latest(field, method="dopri5", atol=tolerance, rtol=tolerance)
        print(f"  {name:14} tolerance {tolerance:.0e}: {found:.3f}")
        assert found > 1.001
print(f"  heun2 on a grid: {latest(gaussian, method='heun2', time_grid=torch.linspace(0, 1, 9)):.3f}")
print("\nA user's network is asked at times that it never saw in training (and where a path's 1 - t is negative).")
EOF
