#!/usr/bin/env bash
# torchcfm 1.0.7 and torchsde 0.2.6: torch.manual_seed does not make them repeat; they draw from numpy's global generator.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6 scipy==1.17.1 POT==0.9.6 torchsde==0.2.6
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check --no-deps torchcfm==1.0.7
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import numpy as np
import torch
import torchsde
from torchcfm import ExactOptimalTransportConditionalFlowMatcher

names = ("torch", "numpy", "torchcfm", "torchsde")
print("python", platform.python_version(), *(f"{name} {version(name)}" for name in names))


class Noise(torch.nn.Module):
    noise_type, sde_type = "diagonal", "ito"

    def f(self, t, y):
        return -y

    def g(self, t, y):
        return torch.ones_like(y)


def pairs():
    start, data = torch.randn(2, 64, 2)
    return ExactOptimalTransportConditionalFlowMatcher().sample_location_and_conditional_flow(start, data)[1]


def path():
    return torchsde.sdeint(Noise(), torch.zeros(4, 1), torch.linspace(0, 1, 3), method="euler", dt=0.1)


print("\nis a second run equal to the first?")
for name, draw in (("torchcfm's optimal-transport pairs", pairs), ("torchsde.sdeint", path)):
    equal = {}
    for seeds in ((torch.manual_seed,), (torch.manual_seed, np.random.seed)):
        runs = []
        for _ in range(2):
            for seed in seeds:
                seed(3)
            runs.append(draw())
        equal[len(seeds)] = torch.equal(*runs)
    print(f"  {name}: with torch.manual_seed {equal[1]}, with numpy.random.seed too {equal[2]}")
    assert equal == {1: False, 2: True}
print("\nA user who seeds torch alone cannot repeat a run.")
EOF
