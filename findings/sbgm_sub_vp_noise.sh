#!/usr/bin/env bash
# sbgm 0.0.38: its sub-VP process adds more noise in training than its own SDE. Needs Python 3.12.
set -euo pipefail
for python in "${PYTHON:-python3}" python3.12 "$HOME"/.pyenv/versions/3.12.*/bin/python; do
    "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null && break
    python=
done
[ -n "$python" ] || { echo "needs Python 3.12; name one with PYTHON=..." >&2; exit 2; }
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$python" -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check jax==0.4.33 jaxlib==0.4.33 numpy==1.26.4 equinox==0.11.7 beartype==0.19.0 ml-collections==0.1.1
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check --no-deps sbgm==0.0.38
"$place/venv/bin/python" - <<'EOF'
import importlib.util
import platform
import sys
import types
from importlib.metadata import version

import jax
import jax.numpy as jnp

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("jax", "equinox", "sbgm")))
package = types.ModuleType("sbgm")  # its processes alone, without what its networks and data sets import
package.__path__ = importlib.util.find_spec("sbgm").submodule_search_locations
sys.modules["sbgm"] = package
from sbgm.sde import SubVPSDE, VPSDE


def integral(t):
    return 0.1 * t + 0.5 * 19.9 * t**2


def simulated(process, time, steps=1_000, count=20_000):
    """Deviation of the process itself, Euler-Maruyama steps from x = 0."""
    dt = time / steps

    def step(i, x):
        drift, diffusion = process.sde(x, (i + 0.5) * dt)
        return x + drift * dt + diffusion * jnp.sqrt(dt) * jax.random.normal(jax.random.fold_in(jax.random.key(0), i), x.shape)

    return float(jax.lax.fori_loop(0, steps, step, jnp.zeros(count)).std())


print("\ndeviation of x(t) given x(0) = 0: marginal_prob, with which it trains, and its own sde simulated")
for kind in (VPSDE, SubVPSDE):
    for time in (0.1, 0.2, 0.3):
        trained, own = float(kind(integral).marginal_prob(jnp.zeros(1), jnp.asarray(time))[1]), simulated(kind(integral), time)
        print(f"  {kind.__name__:9} t = {time}: {trained:.4f} and {own:.4f}, ratio {trained / own:.2f}")
        if kind is VPSDE:
            assert abs(trained / own - 1) < 0.02
        else:
            b = float(integral(time))
            assert abs(own / (1 - jnp.exp(-b)) - 1) < 0.02 and abs(trained / (1 - jnp.exp(-2 * b)) - 1) < 1e-4
print("\nA user of the sub-VP process trains the score at noise levels up to twice those at which it is then sampled.")
EOF
