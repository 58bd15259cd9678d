#!/usr/bin/env bash
# diffusers 0.42.1: its adaptive projected guidance jumps at scale 1, and by default is not the paper's.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6 diffusers==0.42.1
"$place/venv/bin/python" - <<'EOF'
import inspect
import platform
from importlib.metadata import version

import torch
from diffusers.guiders import AdaptiveProjectedGuidance

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("torch", "diffusers")))
generator = torch.Generator().manual_seed(0)
labelled, null = torch.randn(2, 1, 3, 4, 4, generator=generator, dtype=torch.float64)


def theirs(labelled, null, scale, **settings):
    guider = AdaptiveProjectedGuidance(scale, **settings)
    guider.set_state(3, 10, None)
    return guider.forward(labelled, null).pred


def apart(a, b):
    return float((a - b).abs().max())


def by_the_formula(labelled, null, w, eta, threshold):
    """labelled + (w - 1) (orthogonal + eta parallel part of the difference, no longer than the threshold)."""
    difference = labelled - null
    difference = difference * min(1.0, threshold / float(difference.norm()))
    parallel = (difference * labelled).sum() / (labelled**2).sum() * labelled
    return labelled + (w - 1) * (difference - parallel + eta * parallel)


defaults = {name: value.default for name, value in inspect.signature(AdaptiveProjectedGuidance).parameters.items()}
chosen = [defaults[name] for name in ("eta", "adaptive_projected_guidance_rescale", "adaptive_projected_guidance_momentum")]
print("\neta, threshold and momentum by default:", *chosen)
assert chosen == [1.0, 15.0, None]

w, eta, threshold = 4.0, 0.0, 1.0
settings = {"eta": eta, "adaptive_projected_guidance_rescale": threshold}
wanted = by_the_formula(labelled, null, w, eta, threshold)
default = apart(theirs(labelled, null, w, **settings), wanted)
original = apart(theirs(labelled, null, w - 1, use_original_formulation=True, **settings), wanted)
jump = apart(theirs(labelled, null, 1 + 1e-6, **settings), theirs(labelled, null, 1.0, **settings))
print(f"\nlargest distance from labelled + (w - 1) * update, w = {w}, eta = {eta}, threshold = {threshold}:")
print(f"  guidance_scale = w:                                      {default:.2e}")
print(f"  guidance_scale = w - 1, use_original_formulation=True:   {original:.2e}")
print(f"distance between guidance_scale = 1 and 1.000001:          {jump:.2e}")
assert default > 0.5 and original < 1e-12 and jump > 0.5

noise = torch.randn(1, 3, 4, 4, generator=generator, dtype=torch.float64)
t = 0.3
x = t * labelled + (1 - t) * noise
velocities = [(data - x) / (1 - t) for data in (labelled, null)]
guided = theirs(*velocities, w - 1, use_original_formulation=True, **settings)
space = apart(x + (1 - t) * guided, wanted)
print(f"the same denoised predictions given as velocities, t = .3: {space:.2e}")
assert space > 0.2
print("\nA user who carries a scale over, or guides a flow model's velocities, gets other pictures under the same name.")
EOF
