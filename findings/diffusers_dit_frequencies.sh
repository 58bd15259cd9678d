#!/usr/bin/env bash
# diffusers 0.42.1: DiT's time frequencies are not those that the published weights were trained with.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6 diffusers==0.42.1
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import torch
from diffusers import DiTTransformer2DModel

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("torch", "diffusers")))
torch.manual_seed(0)
network = DiTTransformer2DModel(
    num_attention_heads=2, attention_head_dim=16, num_layers=1, sample_size=8, patch_size=2, num_embeds_ada_norm=10
).eval()
embedding = network.transformer_blocks[0].norm1.emb.time_proj
k = torch.arange(128, dtype=torch.float64)


def waves(step, divisor):
    """cos and sin of step * 10000^(-k / divisor), k = 0..127."""
    angles = step * 10_000.0 ** (-k / divisor)
    return torch.cat([angles.cos(), angles.sin()])


print("\nlargest distance of its time embedding from that of 10000^(-k / divisor):")
for step in (10.0, 500.0, 999.0):
    found = embedding(torch.tensor([step]))[0].double()
    own, published = (float((found - waves(step, divisor)).abs().max()) for divisor in (127, 128))
    print(f"  step {step:5}: divisor 127: {own:.1e}, divisor 128 (DiT's own code): {published:.1e}")
    assert own < 1e-3 and published > 0.02
assert published > 1

block = network.transformer_blocks[0]
print("epsilon of the two norms of a block:", block.norm1.norm.eps, block.norm3.eps, "(DiT's own code: 1e-06, 1e-06)")
assert (block.norm1.norm.eps, block.norm3.eps) == (1e-6, 1e-5)
print("\nA user who loads published weights runs the network at slightly other times than it was trained for.")
EOF
