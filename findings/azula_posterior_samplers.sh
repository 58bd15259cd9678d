#!/usr/bin/env bash
# azula 0.11.1: its DPS guides each sample less the more are drawn together, and its DPS, PGDM and RePaint know no measurement noise.
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
from azula.guidance.dps import DPSSampler
from azula.guidance.mmps import MMPSDenoiser
from azula.guidance.pgdm import PGDMSampler
from azula.guidance.repaint import RePaintSampler
from azula.linalg.covariance import IsotropicCovariance
from azula.noise import VPSchedule
from azula.sample import DDIMSampler

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("torch", "azula")))
torch.set_default_dtype(torch.float64)


class StandardNormal(Denoiser):
    """The exact denoiser of data N(0, I), in two dimensions."""

    def __init__(self):
        super().__init__()
        self.levels = VPSchedule()

    @property
    def schedule(self):
        return self.levels

    def forward(self, x, t, **kwargs):
        signal, noise = self.levels(t)
        return DiracPosterior(mean=signal * x / (signal**2 + noise**2))


def first(x):
    return x[..., :1]


def padded(y):
    return torch.cat([y, torch.zeros_like(y)], dim=-1)


def law(make, batch, total):
    """(mean, deviation) of the measured coordinate over ``total`` samples, drawn in batches."""
    torch.manual_seed(0)
    value = torch.ones(batch, 1)
    drawn = torch.cat([make(value)(torch.randn(batch, 2)) for _ in range(total // batch)])[:, 0]
    return float(drawn.mean()), float(drawn.std())


prior = StandardNormal()
makers = {
    "DPS": lambda y: DPSSampler(prior, y, first, steps=256, silent=True),
    "PGDM": lambda y: PGDMSampler(prior, y, first, padded, steps=256, silent=True),
    "RePaint": lambda y: RePaintSampler(prior, padded(y), torch.tensor([True, False]), steps=256, silent=True),
    "MMPS": lambda y: DDIMSampler(
        MMPSDenoiser(prior, y, first, IsotropicCovariance(torch.tensor(1.0))), steps=256, silent=True
    ),
}
print("z normal, the first coordinate measured as 1 with noise of deviation 1: the posterior is N(0.5, 0.707^2)")
batches = {batch: law(makers["DPS"], batch, total) for batch, total in ((1, 64), (64, 1024), (4096, 4096))}
for batch, (mean, deviation) in batches.items():
    print(f"DPS, {batch} drawn together: mean {mean:.3f}, deviation {deviation:.3f}")
others = {name: law(makers[name], 4096, 4096) for name in ("PGDM", "RePaint", "MMPS")}
for name, (mean, deviation) in others.items():
    print(f"{name}: mean {mean:.3f}, deviation {deviation:.3f}")
assert batches[1][1] > 0.4 and batches[64][0] > 0.95 and batches[64][1] < 0.15 and batches[4096][0] < 0.8
assert all(deviation < 0.01 for name, (_, deviation) in others.items() if name != "MMPS")
assert abs(others["MMPS"][0] - 0.5) < 0.05 and abs(others["MMPS"][1] - 0.707) < 0.05
print("wrong by it: the same DPS at another batch size is taken for the same posterior, and a noisy measurement for an exact one")
EOF
