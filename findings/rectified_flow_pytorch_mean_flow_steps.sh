#!/usr/bin/env bash
# rectified-flow-pytorch 0.14.0: MeanFlow in more than one step is no flow map, and SplitMeanFlow in one step runs backwards.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3}" -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check rectified-flow-pytorch==0.14.0 torch==2.14.1 torchvision==0.29.1
"$place/venv/bin/python" -W ignore - <<'EOF'
import platform
from importlib.metadata import version

import torch
from rectified_flow_pytorch import MeanFlow, SplitMeanFlow

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("torch", "rectified-flow-pytorch")))
mean, deviation, count = 1.0, 0.3, 50_000


def moments(t):
    """Mean and deviation of (1 - t) data + t noise, data N(1, .3^2)."""
    return (1 - t) * mean, torch.sqrt((1 - t) ** 2 * deviation**2 + t**2)


def average_velocity(x, t, r):
    """(x_t - x_r) / (t - r) on the exact trajectory through x at t, time 1 noise; the velocity where r = t."""
    (at_t, wide_t), (at_r, wide_r) = moments(t), moments(r)
    velocity = (t - (1 - t) * deviation**2) / wide_t**2 * (x - at_t) - mean
    span = torch.where(t == r, torch.ones_like(t), t - r)
    return torch.where(t == r, velocity, (x - at_r - wide_r / wide_t * (x - at_t)) / span)


class Perfect(torch.nn.Module):
    """The exact map in the arguments of training: state, time, and time less start of the interval."""

    def __init__(self, is_noise_first):
        super().__init__()
        self.is_noise_first, self.weight = is_noise_first, torch.nn.Parameter(torch.zeros(()))

    def forward(self, x, times, delta):
        t, r = times[:, None], (times - delta)[:, None]
        return -average_velocity(x, 1 - t, 1 - r) if self.is_noise_first else average_velocity(x, t, r)


noise = torch.randn(count, 1, generator=torch.Generator().manual_seed(0))
print(f"\nsamples (mean, deviation) of perfect models of N({mean:g}, {deviation}^2):")
flow, found = MeanFlow(Perfect(False), data_shape=(1,)), {}
for steps in (1, 2, 4, 8, 32):
    samples = flow.sample(batch_size=count, noise=noise, steps=steps)
    again = flow.sample(batch_size=count, noise=noise, steps=steps)
    found[steps] = samples.std().item(), (samples - again).abs().max().item()
    print(f"MeanFlow, steps {steps:2d}:      {samples.mean():6.3f} {samples.std():6.3f}; drawn again from the same noise: {found[steps][1]:.3f} apart")
split = SplitMeanFlow(Perfect(True), data_shape=(1,)).sample(batch_size=count, noise=noise, steps=1)
print(f"SplitMeanFlow, steps  1: {split.mean():6.3f} {split.std():6.3f}")

assert abs(found[1][0] - deviation) < 0.01 and found[1][1] == 0
assert found[2][0] < 0.1 < found[4][0] < found[8][0] < 0.25 and found[2][1] > 0.3
assert split.mean() < -3 and split.std() > 3
print("\nA user who takes more steps for better samples gets Euler's error (2 steps: a fourth of the spread) and other noise than was given.")
EOF
