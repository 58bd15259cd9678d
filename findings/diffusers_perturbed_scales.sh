#!/usr/bin/env bash
# diffusers 0.42.1: the scale of skipped layers, perturbed attention and smoothed energy is off at 0 beside classifier-free guidance, and at 1 without it.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6 diffusers==0.42.1
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import diffusers.utils.logging
import torch
from diffusers.guiders import PerturbedAttentionGuidance, SkipLayerGuidance, SmoothedEnergyGuidance

diffusers.utils.logging.set_verbosity_error()
print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("torch", "diffusers")))
labelled, null, weak = torch.randn(3, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
makers = {
    "SkipLayerGuidance": lambda w, s, **more: SkipLayerGuidance(w, s, 0.0, 1.0, [0], **more),
    "PerturbedAttentionGuidance": lambda w, s, **more: PerturbedAttentionGuidance(w, s, 0.0, 1.0, [0], **more),
    "SmoothedEnergyGuidance": lambda w, s, **more: SmoothedEnergyGuidance(w, s, seg_guidance_layers=[0], **more),
}


def off_by(make, w, s, wanted, **more):
    guider = make(w, s, **more)
    guider.set_state(5, 10, None)
    return float((guider.forward(labelled, None if w == 1.0 else null, weak).pred - wanted).abs().max())


s, near = 2.8, 1 + 1e-9
print(f"\nlargest distance, the second scale being s = {s}; labelled, null and perturbed predictions random:")
for name, make in makers.items():
    beside = off_by(make, near, s, labelled + s * (labelled - weak))
    alone = off_by(make, 1.0, s, weak + s * (labelled - weak))
    jump = off_by(make, 1.0, s, labelled + s * (labelled - weak))
    original = off_by(make, 0.0, s, labelled + s * (labelled - weak), use_original_formulation=True)
    print(f"  {name}: guidance_scale {near}: from labelled + s (labelled - perturbed) {beside:.1e}")
    print(f"  {'':{len(name)}}  guidance_scale 1.0: from it {jump:.2f}, from perturbed + s (labelled - perturbed) {alone:.1e}")
    print(f"  {'':{len(name)}}  use_original_formulation, guidance_scale 0.0: from the first {original:.1e}")
    assert beside < 1e-6 and alone < 1e-12 and original < 1e-12 and abs(jump - float((labelled - weak).abs().max())) < 1e-12
print("\nA user who turns classifier-free guidance off to see the perturbation alone, or guides in a part of the steps,"
      "\nloses one whole (labelled - perturbed) of it there: the scale 3 of the paper's formula is 4 without guidance.")
EOF
