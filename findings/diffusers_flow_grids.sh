#!/usr/bin/env bash
# diffusers 0.42.1: "4 steps" of a flow model are three different grids, and a shift is applied twice to the lowest level.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check torch==2.13.0 numpy==2.4.6 diffusers==0.42.1
"$place/venv/bin/python" - <<'EOF'
import platform
from importlib.metadata import version

import numpy as np
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)
from diffusers.guiders import ClassifierFreeGuidance

print("python", platform.python_version(), *(f"{name} {version(name)}" for name in ("torch", "numpy", "diffusers")))
flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


def grid(scheduler, wanted):
    scheduler.set_timesteps(4)
    found = scheduler.sigmas.numpy()
    np.testing.assert_allclose(found, wanted, atol=6e-7)
    return np.round(found, 6)


print("\n4 steps, no shift:")
print("FlowMatchEuler", grid(FlowMatchEulerDiscreteScheduler(), [1, 0.667, 0.334, 0.001, 0]))
plus, unipc, deis = (kind(**flow) for kind in (DPMSolverMultistepScheduler, UniPCMultistepScheduler, DEISMultistepScheduler))
print("DPM++         ", grid(plus, [0.999, 0.74925, 0.4995, 0.24975, 0]))
print("UniPC         ", grid(unipc, [0.999999, 0.75025, 0.5005, 0.25075, 0]))
print("DEIS          ", grid(deis, [0.999, 0.74925, 0.4995, 0.24975, 0.24975]))

print("\nwhat the network is given as its time, 1000 sigma:")
for name, scheduler in (("DPM++", plus), ("UniPC", unipc), ("DEIS", deis)):
    exact = 1000 * scheduler.sigmas[:4].double().numpy()
    given = scheduler.timesteps.numpy()
    assert given.dtype == np.int64 and np.array_equal(given, np.floor(exact + 1e-3)) and np.abs(given - exact).max() > 0.4
    print(f"{name:6}", given, "of", np.round(exact, 3))

print("\nshift 3 on 4 steps (each level s once: 3 s / (1 + 2 s)):")
print("shift=3.0       ", grid(FlowMatchEulerDiscreteScheduler(shift=3.0), [1, 0.857692, 0.602151, 0.008929, 0]))
later = FlowMatchEulerDiscreteScheduler()
later.set_shift(3.0)
print("set_shift(3.0)  ", grid(later, [1, 0.857327, 0.600719, 0.002994, 0]))


def shifted(level):
    return 3 * level / (1 + 2 * level)


np.testing.assert_allclose([shifted(0.001), shifted(shifted(0.001))], [0.002994, 0.008929], atol=6e-7)
print("\na guider with start=.25, stop=.75 and shift=3.0: guided steps, and the levels where guidance begins and ends:")
for steps, wanted in ((10, [2, 3, 4, 5, 6]), (7, [1, 2, 3, 4])):
    scheduler, guider, guided = FlowMatchEulerDiscreteScheduler(shift=3.0), ClassifierFreeGuidance(4.0, start=0.25, stop=0.75), []
    scheduler.set_timesteps(steps)
    for i in range(steps):
        guider.set_state(i, steps, None)
        guided += [i] if guider.num_conditions == 2 else []
    assert guided == wanted
    print(f"{steps:2} steps: {guided}, from {float(scheduler.sigmas[guided[0]]):.3f} to {float(scheduler.sigmas[guided[-1] + 1]):.3f}")

print("\nA user who compares samplers at \"4 steps\" compares other grids (Euler's fourth call stands at .001: three real steps),")
print("a network called at another time than the step's, two shifts for one number, and guidance that moves with n.")
EOF
