#!/usr/bin/env bash
# diffuse-jax 0.1.1: none of its three posterior samplers has the posterior of one Gaussian, and its DPS sharpens without end as steps are added. Needs Python 3.12.
set -euo pipefail
for python in "${PYTHON:-python3}" python3.12 python3.13 "$HOME"/.pyenv/versions/3.12.*/bin/python; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && break
    python=
done
[ -n "$python" ] || { echo "needs Python 3.12 or newer; name one with PYTHON=..." >&2; exit 2; }
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$python" -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check jax==0.12.0.1 numpy==2.4.6 einops==0.8.2 jaxtyping
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check --no-deps diffuse-jax==0.1.1
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version
from typing import NamedTuple

import jax
import jax.numpy as jnp
from diffuse.base_forward_model import MeasurementState
from diffuse.denoisers.cond.dps import DPSDenoiser
from diffuse.denoisers.cond.fps import FPSDenoiser
from diffuse.denoisers.cond.tmp import TMPDenoiser
from diffuse.diffusion.sde import SDE, LinearSchedule
from diffuse.integrator.stochastic import EulerMaruyamaIntegrator
from diffuse.predictor import Predictor
from diffuse.timer.base import VpTimer

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("jax", "diffuse-jax")))


class First(NamedTuple):
    """The measurement of the first of two coordinates."""

    std: float

    def apply(self, x, *_):
        return x[:1]

    def adjoint(self, y, *_):
        return jnp.append(y, 0.0)


model = SDE(LinearSchedule(b_min=0.02, b_max=12.0, t0=0.0, T=1.0))


def score(x, t):
    """The exact score where the data are N(0, I)."""
    return -x / (model.signal_level(t) ** 2 + model.noise_level(t) ** 2)


def law(kind, std, steps):
    """(mean, deviation) of the measured coordinate over 4,096 samples, the measured value being 1."""
    integrator = EulerMaruyamaIntegrator(model=model, timer=VpTimer(n_steps=steps, eps=1e-3, tf=1.0))
    sampler = kind(
        integrator=integrator, model=model, predictor=Predictor(model, score, "score"), forward_model=First(std), x0_shape=(2,)
    )
    measured = MeasurementState(y=jnp.ones(1), mask_history=jnp.zeros(1))
    state, _ = jax.jit(lambda key: sampler.generate(key, measured, steps, 4096))(jax.random.key(0))
    drawn = state.integrator_state.position[:, 0]
    return float(drawn.mean()), float(drawn.std())


found = {}
for std in (0.1, 0.5, 1.0):
    print(f"noise {std}: the posterior is N({1 / (1 + std**2):.3f}, {std / (1 + std**2) ** 0.5:.3f}^2)")
    for kind in (DPSDenoiser, FPSDenoiser, TMPDenoiser):
        for steps in (200, 800):
            found[kind.__name__, std, steps] = law(kind, std, steps)
            print(f"  {kind.__name__}, {steps} steps: mean {found[kind.__name__, std, steps][0]:.3f}, "
                  f"deviation {found[kind.__name__, std, steps][1]:.3f}")
assert all(found["DPSDenoiser", std, 200][1] > 0.4 and found["DPSDenoiser", std, 800][1] < 0.05 for std in (0.1, 0.5, 1.0))
assert all(found["FPSDenoiser", std, 800][1] < 0.5 * std / (1 + std**2) ** 0.5 for std in (0.1, 0.5, 1.0))
assert all(found["TMPDenoiser", 0.1, steps][0] < 0.9 and found["TMPDenoiser", 0.1, steps][1] > 0.3 for steps in (200, 800))
print("\nA user who takes the spread of these samples for the posterior's gets a quarter to half of it (FPS), up to four times it (TMP),"
      "\nor what the number of steps makes of it (DPS, whatever the noise).")
EOF
