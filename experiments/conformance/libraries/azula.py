"""azula: time 1 is noise, x = alpha z + sigma e, and denoisers give .mean; the schedule ends at .001, not at 0."""

from typing import Any

import numpy as np
import torch
from azula import sample
from azula.denoise import Denoiser, DiracPosterior
from azula.guidance import CFGDenoiser
from azula.noise import RectifiedSchedule

from experiments.conformance import figures
from experiments.conformance.bridge import Draw, Velocity, guider, law, moved, solver
from experiments.conformance.figures import STARTS
from experiments.conformance.figures import figures as figure_record
from experiments.conformance.names import LABELLED, NULL, ORDER, OTHER
from experiments.conformance.records import Record


class Model(Denoiser):
    """The denoiser D = x + (1 - t) u of a field, azula's state brought to the straight path."""

    def __init__(self, velocity: Velocity, schedule: Any = None) -> None:
        super().__init__()
        self.velocity, self.schedule = velocity, schedule or RectifiedSchedule()

    def levels(self, t: float) -> tuple[float, float]:
        """The time on the straight path, and the factor of its state."""
        alpha, sigma = (float(part) for part in self.schedule(torch.as_tensor(t)))
        return alpha / (alpha + sigma), alpha + sigma

    def forward(self, x: Any, t: Any, **_: Any) -> Any:
        """The posterior's mean."""
        time, scale = self.levels(t)
        state = x / scale
        return DiracPosterior(state + (1 - time) * torch.from_numpy(self.velocity(state.numpy(), time)))


def draw(kind: Any, **settings: float) -> Draw:
    """A sampler started and ended exactly by the flow; no generator can be given."""

    def run(velocity: Velocity, x: np.ndarray, n_steps: int, seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        model = Model(velocity)
        first, scale = model.levels(1.0)
        start = scale * torch.from_numpy(moved(velocity, x, 0.0, first))
        end = kind(model, steps=n_steps, silent=True, **settings)(start)
        last, scale = model.levels(0.0)
        return moved(velocity, (end / scale).numpy(), last, 1.0, 2)

    return run


class Side(Denoiser):
    """A denoiser that says what it is given."""

    def forward(self, x: Any, t: Any, mean: Any) -> Any:
        """The given mean."""
        return DiracPosterior(mean)


def guide(sides: tuple[np.ndarray, np.ndarray], w: float, x: np.ndarray, t: float) -> np.ndarray:
    """The guider of denoisers, whose rule is the same in every space."""
    labelled, null = ({"mean": torch.from_numpy(side)} for side in sides)
    guided = CFGDenoiser(Side())(torch.from_numpy(x), torch.tensor(t), labelled, null, guidance=w)
    return guided.mean.numpy()


def exact_ends(index: int) -> float:
    """Where DDIM of 8 steps ends, on a schedule with exact ends."""
    model = Model(figures.velocity, RectifiedSchedule(alpha_min=0.0, sigma_min=0.0))
    return float(sample.DDIMSampler(model, steps=8, silent=True)(torch.from_numpy(STARTS))[index, 0])


def is_euler_ddim() -> float:
    """1 where two samplers of 8 steps agree to 1e-12, in double precision."""
    torch.set_default_dtype(torch.float64)
    try:
        model, start = Model(figures.velocity), torch.from_numpy(STARTS)
        euler, ddim = (kind(model, steps=8, silent=True)(start) for kind in (sample.EulerSampler, sample.DDIMSampler))
        return float((euler - ddim).abs().max() < 1e-12)
    finally:
        torch.set_default_dtype(torch.float32)


_ENDS = (0.64790286, 0.90610743, 1.07041943, 1.25820457)
_SAME = "Euler in sigma / alpha: the same numbers as DDIM. [`azula_euler_is_ddim`]"
RECORDS: list[Record] = [
    guider(
        "CFGDenoiser(denoiser)(x, t, positive, negative, guidance=w)",
        guide,
        fails=(NULL, LABELLED, OTHER),
        remark="Another convention: w = 1 + `guidance`. [`azula_euler_is_ddim`]",
    ),
    guider(
        "CFGDenoiser(denoiser)(x, t, positive, negative, guidance=w - 1)",
        lambda sides, w, x, t: guide(sides, w - 1, x, t),
    ),
    solver("DDIMSampler(denoiser, steps=n)(x)", draw(sample.DDIMSampler), 1),
    solver("EulerSampler(denoiser, steps=n)(x)", draw(sample.EulerSampler), 1, remark=_SAME),
    solver("HeunSampler(denoiser, steps=n)(x)", draw(sample.HeunSampler), 2),
    *(
        solver(f"{name}(denoiser, steps=n)(x)", draw(getattr(sample, name)), 2)
        for name in ("zABSampler", "vABSampler", "zEABSampler", "xEABSampler")
    ),
    solver(
        "REABSampler(denoiser, steps=n)(x)",
        draw(sample.REABSampler),
        2,
        fails=(ORDER,),
        remark="Seen on this one problem; why was not followed.",
    ),
    solver("ItoSampler(denoiser, steps=n, eta=0.)(x)", draw(sample.ItoSampler, eta=0.0), 1),
    law(
        "DDPMSampler(denoiser, steps=n)(x)",
        draw(sample.DDPMSampler),
    ),
    law(
        "DDIMSampler(denoiser, steps=n, eta=1.)(x)",
        draw(sample.DDIMSampler, eta=1.0),
    ),
    law("ItoSampler(denoiser, steps=n, eta=1.)(x)", draw(sample.ItoSampler, eta=1.0)),
    law("PCSampler(denoiser, steps=n)(x)", draw(sample.PCSampler)),
    figure_record(
        "DDIMSampler(denoiser, steps=8), RectifiedSchedule(alpha_min=0., sigma_min=0.)",
        {f"end {i + 1} of 4": (lambda i=i: exact_ends(i), before, 1e-7) for i, before in enumerate(_ENDS)},
        "Equal to `solvers.ddim`.",
    ),
    figure_record(
        "EulerSampler against DDIMSampler, 8 steps",
        {"equal to 1e-12": (is_euler_ddim, 1.0, 0.0)},
        "One method under two names. [`azula_euler_is_ddim`]",
    ),
    figure_record(
        "HeunSampler(denoiser, steps=8)",
        {"error, 8 steps": (lambda: figures.error(draw(sample.HeunSampler), 8), 9.1e-2, 0.02)},
        "Heun's rule in sigma / alpha, from 1000.",
    ),
]
