#!/usr/bin/env bash
# sbi 0.27.0: guidance of a flow-matching posterior is ignored by its ODE, and even neutral guidance wrecks its SDE.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6 sbi==0.27.0
"$place/venv/bin/python" - <<'EOF'
import contextlib
import io
import platform
import warnings
from importlib.metadata import version

import torch
from sbi.inference import FMPE, NPSE

warnings.simplefilter("ignore")
print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("torch", "sbi")))
prior = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
neutral = {"prior_scale": 1.0, "prior_shift": 0.0, "likelihood_scale": 1.0, "likelihood_shift": 0.0}


def posterior(kind, sample_with):
    torch.manual_seed(0)
    theta = prior.sample((64,))
    inference = kind(prior).append_simulations(theta, theta + 0.5 * torch.randn_like(theta))
    with contextlib.redirect_stdout(io.StringIO()):
        network = inference.train(max_num_epochs=1)
    return inference.build_posterior(network, sample_with=sample_with).set_default_x(torch.tensor([[0.5, -0.5]]))


def samples(drawn_from, guidance):
    torch.manual_seed(1)
    settings = {"guidance_method": "affine_classifier_free", "guidance_params": guidance} if guidance else {}
    return drawn_from.sample((100,), steps=50, show_progress_bars=False, reject_outside_prior=False, **settings)


found = {}
print("\nlargest size of 100 samples of a hardly trained posterior, 50 steps:")
for kind, way in ((FMPE, "ode"), (FMPE, "sde"), (NPSE, "sde")):
    drawn_from = posterior(kind, way)
    for name, guidance in (("none", None), ("neutral", neutral), ("likelihood x 3", neutral | {"likelihood_scale": 3.0})):
        found[kind.__name__, way, name] = samples(drawn_from, guidance)
        print(f"  {kind.__name__}, {way}, guidance {name:14}: {float(found[kind.__name__, way, name].abs().max()):.4g}")
assert torch.equal(found["FMPE", "ode", "none"], found["FMPE", "ode", "likelihood x 3"])
assert found["FMPE", "sde", "none"].abs().max() < 20 < 100 < found["FMPE", "sde", "neutral"].abs().max()
torch.testing.assert_close(found["NPSE", "sde", "none"], found["NPSE", "sde", "neutral"], rtol=1e-2, atol=1e-2)
assert not torch.allclose(found["NPSE", "sde", "none"], found["NPSE", "sde", "likelihood x 3"], rtol=1e-2, atol=1e-1)
print("\nA user who guides a flow-matching posterior gets the unguided samples (ODE, the default) or diverging ones (SDE).")
EOF
