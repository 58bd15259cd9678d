#!/usr/bin/env bash
# jax 0.10.2: under vmap, draws from rbg keys do not depend on their own keys.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check jax==0.10.2 numpy==2.4.6
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import jax
import jax.numpy as jnp

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("jax",)))


def draw(key):
    return jax.random.normal(key, (2,))


print("\nfour keys, two numbers each, by jax.vmap and by a loop; rows that agree; is one key given twice drawn once?")
for implementation in ("threefry2x32", "rbg"):
    keys = jax.random.split(jax.random.key(0, impl=implementation), 4)
    together, apart = jax.vmap(draw)(keys), jnp.stack([draw(key) for key in keys])
    agree = [bool((a == b).all()) for a, b in zip(together, apart)]
    twice = jax.vmap(draw)(jnp.stack([keys[0], keys[0]]))
    same = bool((twice[0] == twice[1]).all())
    print(f"  {implementation:13} {agree} {same}")
    changed = jax.vmap(draw)(keys.at[3].set(jax.random.key(9, impl=implementation)))
    moved = bool((changed[3] != together[3]).any())
    print(f"  {implementation:13} does row 3 change when its key does? {moved}")
    assert (agree, same, moved) == (([True] * 4, True, True) if implementation != "rbg" else ([True, False, False, False], False, False))
print("\nA user who gives each example a key (and rbg, for TPUs) gets other noise when the batch is cut over more devices.")
EOF
