#!/usr/bin/env bash
# diffuse-jax 0.1.1: its EDM model's ODE and its flow model's SDE do not tend to the law of the data, with an exact score. Needs Python 3.12.
set -euo pipefail
for python in "${PYTHON:-python3}" python3.12 python3.13 "$HOME"/.pyenv/versions/3.12.*/bin/python; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && break
    python=
done
[ -n "$python" ] || { echo "needs Python 3.12 or newer; name one with PYTHON=..." >&2; exit 2; }
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"$python" -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check jax==0.12.0.1 numpy==2.4.6 jaxtyping
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check --no-deps diffuse-jax==0.1.1
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import jax
import jax.numpy as jnp
from diffuse.diffusion.sde import EDM, SDE, Flow, LinearSchedule
from diffuse.integrator.deterministic import DDIMIntegrator, EulerIntegrator, HeunIntegrator
from diffuse.integrator.stochastic import EulerMaruyamaIntegrator
from diffuse.predictor import Predictor
from diffuse.timer.base import VpTimer

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("jax", "diffuse-jax")))
mean, deviation, count = 1.0, 0.3, 20_000


def law(model, kind, steps, last):
    """(mean, deviation) of samples that start from the exact law at the time ``last``."""

    def score(x, t):
        signal, noise = model.signal_level(t), model.noise_level(t)
        return -(x - signal * mean) / (signal**2 * deviation**2 + noise**2)

    predictor, integrator = Predictor(model, score, "score"), kind(model=model, timer=VpTimer(n_steps=steps, eps=1e-3, tf=last))
    data, noise, key = jax.random.split(jax.random.key(0), 3)
    start = model.path(noise, integrator.init(mean + deviation * jax.random.normal(data, (count,)), key), jnp.asarray(last))
    state = integrator.init(start.position, key)._replace(step=jnp.asarray(0))
    samples = jax.lax.scan(lambda state, _: (integrator(state, predictor), None), state, None, length=steps)[0].position
    return round(float(samples.mean()), 3), round(float(samples.std()), 3)


models = {"SDE": (SDE(LinearSchedule(b_min=0.1, b_max=20.0, t0=0.0, T=1.0)), 1.0), "Flow": (Flow(), 0.99), "EDM": (EDM(), 0.99)}
wrong = {("Flow", EulerMaruyamaIntegrator), ("EDM", EulerIntegrator), ("EDM", HeunIntegrator), ("EDM", EulerMaruyamaIntegrator)}
print(f"\nexact score of N({mean}, {deviation}^2); (mean, deviation) after 50 and 400 steps:")
for name, (model, last) in models.items():
    for kind in (EulerIntegrator, HeunIntegrator, DDIMIntegrator, EulerMaruyamaIntegrator):
        found = [law(model, kind, steps, last) for steps in (50, 400)]
        print(f"  {name:4} {kind.__name__:23}", *found)
        is_right = abs(found[1][0] - mean) < 0.02 and abs(found[1][1] - deviation) < 0.02
        assert is_right != ((name, kind) in wrong)

time, x = 0.2, 0.7
velocity = Predictor(EDM(), lambda x, t: -(x - mean) / (deviation**2 + t**2), "score").velocity(x, jnp.asarray(time))
right = time * (x - mean) / (deviation**2 + time**2)
print(f"EDM at t = {time}, x = {x}: velocity {float(velocity):.4f}; E[noise | x], which is d/dt of data + t noise, is {right:.4f}")
assert abs(float(velocity) - 0.5 * (x - mean) / (deviation**2 + time**2)) < 1e-5
levels = {t: round(float(EDM(tf=80.0).noise_level(jnp.asarray(t))), 3) for t in (0.5, 2.0, 80.0)}
print("EDM(tf=80.0).noise_level:", levels, "for sigma(t) = t")
assert levels == {0.5: 0.5, 2.0: 0.999, 80.0: 0.999}
print("\nA user of EDM's Euler or Heun gets less than half of the spread, one of the flow's SDE another mean, and no noise level above 1.")
EOF
