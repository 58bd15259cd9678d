#!/usr/bin/env bash
# diffusers 0.42.1: UniPC with solver_type="bh1" ends in NaN at its default final level, 0.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6 diffusers==0.42.1
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import torch
from diffusers import UniPCMultistepScheduler

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("torch", "diffusers")))
print("\nthe noise prediction x of data that are all 0; 8 steps")


def sample(**settings):
    scheduler = UniPCMultistepScheduler(**settings)
    scheduler.set_timesteps(8)
    x, finite = torch.tensor([[-1.0], [0.5]]), []
    for step in scheduler.timesteps:
        x = scheduler.step(x, step, x, return_dict=False)[0]
        finite.append(bool(x.isfinite().all()))
    return x, finite


for settings in ({"solver_type": "bh1"}, {"solver_type": "bh2"}, {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}):
    x, finite = sample(**settings)
    print(settings, "->", x.flatten().tolist(), "finite after each step:", finite)
    broken = settings == {"solver_type": "bh1"}
    assert finite == [True] * 7 + [not broken]
print("\nA user who picks bh1 (advised for few unguided steps) loses every sample at the last step, without an error.")
EOF
