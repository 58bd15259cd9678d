#!/usr/bin/env bash
# diffusers 0.42.1: CFG-Zero* zeroes the first step at every scale, and with guidance_rescale makes it NaN.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6 diffusers==0.42.1
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import torch
from diffusers.guiders import ClassifierFreeZeroStarGuidance

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("torch", "diffusers")))
labelled, null = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def predictions(scale, **settings):
    guider = ClassifierFreeZeroStarGuidance(scale, **settings)
    found = []
    for step in range(3):
        guider.set_state(step, 10, None)
        given = (labelled, null) if guider.num_conditions == 2 else (labelled, None)
        found.append(guider.forward(*given).pred)
    return found


print("\nlargest size of the guided prediction in the first three of 10 steps:")
for words, scale, settings in (
    ("scale 4", 4.0, {}),
    ("scale 4, guidance from .2 of the steps on", 4.0, {"start": 0.2}),
    ("scale 1 (one evaluation)", 1.0, {}),
    ("scale 4, guidance_rescale .7", 4.0, {"guidance_rescale": 0.7}),
):
    sizes = [float(prediction.abs().max()) for prediction in predictions(scale, **settings)]
    print(f"  {words:42}", [round(size, 3) for size in sizes])
    assert all(size > 0.5 for size in sizes[1:])
    assert sizes[0] == 0 if "rescale" not in words else sizes[0] != sizes[0]
print("\nA user who sets guidance_rescale gets NaN samples, and one with scale 1 or a later start still loses the first step.")
EOF
