#!/usr/bin/env bash
# jax 0.12.0.1 on CPUs: one key's normal numbers differ in their last bits by how many are drawn beside them. Needs Python 3.12.
set -euo pipefail
for python in "${PYTHON:-python3}" python3.12 python3.13 "$HOME"/.pyenv/versions/3.1[23].*/bin/python; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && break
    python=
done
[ -n "$python" ] || { echo "needs Python 3.12 or newer; name one with PYTHON=..." >&2; exit 2; }
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
counts() {
    "$python" -m venv "$place/$1"
    "$place/$1/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check "jax[cpu]==$1"
    JAX_PLATFORMS=cpu XLA_FLAGS= "$place/$1/bin/python" - <<'EOF'
import platform

import jax
import jax.numpy as jnp
import numpy as np

print(f"python {platform.python_version()}, jax {jax.__version__}")
key, each = jax.random.key(11), jnp.arange(64)


def differing(draw):
    """How many numbers of 64 keys, three each, change their bits where each key is drawn alone."""

    def of_index(index):
        return draw(jax.random.fold_in(key, index), (3,))

    together = np.asarray(jax.jit(jax.vmap(of_index))(each))
    alone = np.stack([np.asarray(jax.jit(of_index)(index)) for index in each])
    print(f"  {draw.__name__:8} {np.sum(together != alone):2} of {alone.size} differ, by {np.max(np.abs(together - alone)):.1e} at most")
    return np.sum(together != alone)


found = {draw.__name__: differing(draw) for draw in (jax.random.bits, jax.random.uniform, jax.random.normal)}
assert found["bits"] == found["uniform"] == 0
assert (found["normal"] > 0) == jax.__version__.startswith("0.12")
EOF
}
counts 0.10.2
counts 0.12.0.1
echo "Samples kept as \"the noise of key i\" are, on a CPU, other numbers in another batch: compare them to rounding, or draw the bits once."
