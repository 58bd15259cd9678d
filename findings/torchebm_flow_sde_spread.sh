#!/usr/bin/env bash
# torchebm 0.8.9: samples of its flow's SDE with the default settings have half the spread of the data, however many steps.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6 torchebm==0.8.9
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import torch
from torchebm.samplers import FlowSampler

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("torch", "torchebm")))
mean, deviation, count = 1.0, 0.3, 20_000


class Exact(torch.nn.Module):
    """The exact velocity of N(1, 0.3^2) on the straight path from noise (t = 0)."""

    def forward(self, x, t, **_):
        t = t.reshape(-1, 1)
        gain = (t * deviation**2 - (1 - t)) / (t**2 * deviation**2 + (1 - t) ** 2)
        return mean + gain * (x - t * mean)


def law(num_steps, **settings):
    """(mean, deviation) of 20,000 samples."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(count, 1, generator=generator)
    x = FlowSampler(Exact(), **settings).sample(noise, n_steps=num_steps, generator=generator)
    return float(x.mean()), float(x.std())


print(f"data N({mean}, {deviation}^2), exact velocity, {count} samples")
cases = {
    "mode='ode'": {"mode": "ode"},
    "mode='sde'": {"mode": "sde"},
    "mode='sde', diffusion_form='sigma'": {"mode": "sde", "diffusion_form": "sigma"},
}
found = {}
for name, settings in cases.items():
    for num_steps in (250, 1000):
        found[name, num_steps] = law(num_steps, **settings)
        print(f"  {name}, {num_steps} steps: mean {found[name, num_steps][0]:.3f}, deviation {found[name, num_steps][1]:.3f}")
for num_steps in (250, 1000):
    assert abs(found["mode='ode'", num_steps][1] - deviation) < 0.01
    assert abs(found["mode='sde', diffusion_form='sigma'", num_steps][1] - deviation) < 0.02
    assert abs(found["mode='sde'", num_steps][0] - mean) < 0.02 and found["mode='sde'", num_steps][1] < 0.6 * deviation
print("\nA user who switches the flow's sampler from the ODE to the SDE gets samples of half the spread, and more steps do not mend it.")
EOF
