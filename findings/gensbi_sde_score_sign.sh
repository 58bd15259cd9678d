#!/usr/bin/env bash
# gensbi 0.5.1: the score of its stochastic flow-matching solvers has the wrong sign of the velocity. Needs Python 3.12.
set -euo pipefail
for python in "${PYTHON:-python3}" python3.12 python3.13 "$HOME"/.pyenv/versions/3.12.*/bin/python; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && break
    python=
done
[ -n "$python" ] || { echo "needs Python 3.12 or newer; name one with PYTHON=..." >&2; exit 2; }
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$python" -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check jax==0.12.0.1 flax==0.12.12 grain==0.2.18 diffrax==0.7.2 equinox einops numpyro safetensors tqdm
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check --no-deps gensbi==0.5.1
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import jax
import jax.numpy as jnp
from flax import nnx
from gensbi.flow_matching.solver import FMODESolver, NonSingularSolver, ZeroEndsSolver
from gensbi.utils.model_wrapping import ModelWrapper

names = ("jax", "flax", "diffrax", "gensbi")
print("python", platform.python_version(), *(f"{name} {version(name)}" for name in names))
mean, deviation = 1.0, 0.3


class Exact(nnx.Module):
    """The velocity of x = t data + (1 - t) noise, data N(1, .3^2): t = 0 is noise, as in gensbi."""

    def __call__(self, t, obs, **extras):
        variance = t**2 * deviation**2 + (1 - t) ** 2
        return mean + (t * deviation**2 - (1 - t)) / variance * (obs - t * mean)


model, start = ModelWrapper(Exact()), {"mu0": jnp.zeros((1, 1)), "sigma0": jnp.ones((1, 1))}
t, x = 0.4, 0.7
found = ZeroEndsSolver(model, **start, alpha=1.0).get_score()(t, jnp.full((1, 1, 1), x), None).item()
velocity = Exact()(t, x)
right = -(x - t * mean) / (t**2 * deviation**2 + (1 - t) ** 2)
print(f"\nscore at t = {t}, x = {x}: {found:.4f}; right is {right:.4f}")
print(f"(t u - x) / (1 - t) = {(t * velocity - x) / (1 - t):.4f}, (-t u - x) / (1 - t) = {(-t * velocity - x) / (1 - t):.4f}")
assert abs(found - (-t * velocity - x) / (1 - t)) < 1e-5 and abs((t * velocity - x) / (1 - t) - right) < 1e-12

noise = jax.random.normal(jax.random.key(0), (2_000, 1, 1))


def law(solver, **settings):
    samples = solver.sample(x_init=noise, step_size=0.01, **settings)
    return float(samples.mean()), float(samples.std())


print(f"samples (mean, deviation), right is ({mean}, {deviation}):")
ode = law(FMODESolver(model))
print("  FMODESolver              {:6.3f} {:6.3f}".format(*ode))
assert abs(ode[0] - mean) < 0.03 and abs(ode[1] - deviation) < 0.02
for kind in (ZeroEndsSolver, NonSingularSolver):
    for alpha, limits in ((1.0, (0.5, 0.8)), (2.0, (-0.4, 0.2))):
        found = law(kind(model, **start, alpha=alpha), key=jax.random.key(1))
        print("  {:18} alpha {:g} {:6.3f} {:6.3f}".format(kind.__name__, alpha, *found))
        assert limits[0] < found[0] < limits[1] and found[1] > 0.33
print("\nA user who draws posteriors with the stochastic solvers gets another mean and a wider law, the more so the more noise.")
EOF
