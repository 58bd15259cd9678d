#!/usr/bin/env bash
# jax 0.10.2: under vmap the gradient of cuDNN's attention wants its residuals and its cotangent both batched, or raises.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check --no-deps jax-cuda13-plugin==0.10.2 nvidia-cudnn-cu13==9.14.0.64
export JAX_PLATFORMS=cpu
"$place/venv/bin/python" 2>/dev/null <<'EOF'
import platform
from importlib.metadata import version

import jax
import jax.numpy as jnp

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("jax", "jax-cuda13-plugin")))
tokens = jnp.ones((16, 2, 8), jnp.bfloat16)
plain = jnp.ones((16, 2, 8), jnp.float32)


def attention(implementation):
    return lambda x: jax.nn.dot_product_attention(x, x, x, implementation=implementation)


def energy(attention):
    return lambda x: attention(x).astype(jnp.float32).sum()


def squared(attention):
    return lambda x: attention(x) ** 2


def lowered(function, x):
    """What becomes of a function that is lowered, not run, for CUDA."""
    try:
        text = jax.jit(function).trace(x).lower(lowering_platforms=("cuda",)).as_text()
    except TypeError as error:
        return f"TypeError: {str(error).splitlines()[0][:110]}"
    return f"lowered, {text.count('@__cudnn$fmha')} calls of cuDNN"


print("\nlowered for CUDA:")
rows = {
    "xla, jacrev": lowered(jax.jacrev(attention("xla")), plain),
    "cudnn, grad": lowered(jax.grad(energy(attention("cudnn"))), tokens),
    "cudnn, vmap of grad of squares": lowered(jax.vmap(jax.grad(energy(squared(attention("cudnn"))))), jnp.stack([tokens] * 3)),
    "cudnn, vmap of grad of sum": lowered(jax.vmap(jax.grad(energy(attention("cudnn")))), jnp.stack([tokens] * 3)),
    "cudnn, jacrev": lowered(jax.jacrev(attention("cudnn")), tokens),
}
for name, row in rows.items():
    print(f"  {name:31} {row}")
assert rows["xla, jacrev"].startswith("lowered")
assert rows["cudnn, grad"] == rows["cudnn, vmap of grad of squares"] == "lowered, 2 calls of cuDNN"
assert all(rows[name].startswith("TypeError: cannot reshape") for name in ("cudnn, jacrev", "cudnn, vmap of grad of sum"))
print("\nA user whose training runs with cuDNN's attention finds that Jacobians, exact divergences and some per-example gradients of it do not.")
EOF
