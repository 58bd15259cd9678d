#!/usr/bin/env bash
# azula 0.11.1: its Euler sampler is its DDIM sampler, and its default guidance of 1.0 is twice the labelled difference.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6 einops==0.8.2 tqdm
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check --no-deps azula==0.11.1
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import torch
from azula.denoise import Denoiser, DiracPosterior
from azula.guidance import CFGDenoiser
from azula.noise import CosineSchedule, RectifiedSchedule, VPSchedule
from azula.sample import DDIMSampler, EulerSampler, HeunSampler

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("torch", "azula")))
torch.set_default_dtype(torch.float64)
deviation = 0.3


class Exact(Denoiser):
    """E[data | x] of data N(mean, .3^2)."""

    def __init__(self, schedule):
        super().__init__()
        self.schedule = schedule

    def forward(self, x, t, mean=1.0):
        alpha, sigma = self.schedule(t)
        gain = alpha * deviation**2 / (alpha**2 * deviation**2 + sigma**2)
        return DiracPosterior(mean=mean + gain * (x - alpha * mean))


noise = torch.tensor([[-1.5], [-0.4], [0.3], [1.1]])
print("\nlargest distance between two samplers of azula, 8 steps from the same noise:")
for schedule in (RectifiedSchedule(), CosineSchedule(), VPSchedule()):
    model = Exact(schedule)
    drawn = [kind(model, steps=8, silent=True)(noise) for kind in (EulerSampler, DDIMSampler, HeunSampler)]
    euler, heun = (float((other - drawn[1]).abs().max()) for other in (drawn[0], drawn[2]))
    print(f"  {type(schedule).__name__:18} Euler and DDIM {euler:.1e}, Heun and DDIM {heun:.1e}")
    assert euler < 1e-12 < 1e-2 < heun

model, t, x = CFGDenoiser(Exact(RectifiedSchedule())), torch.tensor(0.5), torch.zeros(1, 1)
sides = [float(Exact(RectifiedSchedule())(x, t, mean).mean) for mean in (1.0, 0.0)]
found = {scale: float(model(x, t, {"mean": 1.0}, {"mean": 0.0}, **scale_given).mean)
         for scale, scale_given in (("default", {}), (0.0, {"guidance": 0.0}), (1.0, {"guidance": 1.0}))}
print(f"\nlabelled {sides[0]:.4f}, null {sides[1]:.4f}; guided by default {found['default']:.4f}, by 0 {found[0.0]:.4f}")
assert found["default"] == found[1.0] and abs(found[1.0] - (2 * sides[0] - sides[1])) < 1e-12 and abs(found[0.0] - sides[0]) < 1e-12
print("\nA user who compares Euler with DDIM compares one method with itself; one who takes guidance 1 for unguided gets twice it.")
EOF
