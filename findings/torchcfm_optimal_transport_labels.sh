#!/usr/bin/env bash
# torchcfm 1.0.7: with optimal-transport pairing the noise that a label is trained with is no longer N(0, I).
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6 scipy==1.17.1 POT==0.9.6
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check --no-deps torchcfm==1.0.7
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import numpy as np
import torch
from torchcfm import ConditionalFlowMatcher, ExactOptimalTransportConditionalFlowMatcher

names = ("torch", "numpy", "POT", "torchcfm")
print("python", platform.python_version(), *(f"{name} {version(name)}" for name in names))
torch.manual_seed(0)
np.random.seed(0)
label = torch.arange(512) % 2
data = torch.where(label == 0, -2.0, 2.0)[:, None] + 0.3 * torch.randn(512, 1)
noise = torch.randn(512, 1)


def of_each_label(start, label):
    return [(round(float(start[label == k].mean()), 2), round(float(start[label == k].std()), 2)) for k in (0, 1)]


_, xt, ut, _, paired = ExactOptimalTransportConditionalFlowMatcher().guided_sample_location_and_conditional_flow(
    noise, data, y1=label, t=torch.zeros(512)
)
optimal = of_each_label(xt, paired)
_, xt, ut = ConditionalFlowMatcher().sample_location_and_conditional_flow(noise, data, t=torch.zeros(512))
independent = of_each_label(xt, label)
print("\n(mean, deviation) of the noise at t = 0 that labels 0 (data at -2) and 1 (data at 2) are trained with:")
print("  independent pairing:      ", *independent)
print("  optimal-transport pairing:", *optimal)
for (mean, deviation), side in zip(optimal, (-1, 1)):
    assert abs(side * mean - 0.8) < 0.12 and abs(deviation - 0.65) < 0.12
assert all(abs(mean) < 0.15 and abs(deviation - 1) < 0.12 for mean, deviation in independent)
print("\nA user who samples a label from N(0, I), as classifier-free guidance does, starts from a law that label never saw.")
EOF
