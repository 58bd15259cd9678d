"""flow_matching: time 0 is noise and the model is the field, as in cfgjax; torchdiffeq solves."""

from typing import Any

import numpy as np
import torch
from flow_matching.path import CondOTProbPath
from flow_matching.path.scheduler import (
    CondOTScheduler,
    CosineScheduler,
    LinearVPScheduler,
    PolynomialConvexScheduler,
    VPScheduler,
)
from flow_matching.path.scheduler.schedule_transform import ScheduleTransformedModel
from flow_matching.solver import ODESolver
from flow_matching.utils import ModelWrapper

from experiments.conformance import figures
from experiments.conformance.bridge import Draw, Velocity, conversion, solver
from experiments.conformance.figures import figures as figure_record
from experiments.conformance.names import END, LIMIT, ORDER
from experiments.conformance.records import Record


class Model(ModelWrapper):
    """What stands for a network."""

    def __init__(self, velocity: Velocity) -> None:
        super().__init__(torch.nn.Identity())
        self.velocity = velocity

    def forward(self, x: Any, t: Any, **extras: Any) -> Any:
        """The field of a batch at one time."""
        return torch.from_numpy(self.velocity(x.numpy(), float(t)))


def draw(method: str, to: Any = None) -> Draw:
    """Equal steps, but of dopri5; ``to``: the schedule of another path."""

    def sample(velocity: Velocity, x: np.ndarray, n_steps: int, seed: int) -> np.ndarray:
        model = Model(velocity) if to is None else ScheduleTransformedModel(Model(velocity), CondOTScheduler(), to)
        size = None if method == "dopri5" else 1 / n_steps
        return ODESolver(model).sample(torch.from_numpy(x.copy()), step_size=size, method=method).numpy()

    return sample


def last_time() -> float:
    """The largest time at which dopri5 asks the field -x."""
    asked = []

    def field(x: Any, t: Any) -> Any:
        asked.append(float(t))
        return -x

    ODESolver(field).sample(torch.ones(2, 1), step_size=None, method="dopri5")
    return max(asked)


def at_cosine(method: str) -> float:
    """Where N(1, 0.3^2)'s flow from 0 ends, whose end is 1, brought to the cosine schedule, in steps of 0.1."""
    start = np.zeros((1, 1), np.float32)
    return float(draw(method, CosineScheduler())(figures.velocity, start, 10, 0)[0, 0])


def coefficient(scheduler: Any, name: str, t: float) -> float:
    """A coefficient of a schedule."""
    return float(getattr(scheduler(torch.tensor([t])), name)[0])


OT = CondOTProbPath()
_PAST = "Beyond the end the transformed field is large, and Heun's rule asks it there: at t = 1 sigma is -4e-8."
RECORDS: list[Record] = [
    *(
        solver(f'ODESolver(model).sample(x, step_size=1 / n, method="{method}")', draw(method), order)
        for method, order in {"euler": 1, "midpoint": 2, "heun2": 2, "heun3": 3, "rk4": 4}.items()
    ),
    solver('ODESolver(model).sample(x, step_size=None, method="dopri5")', draw("dopri5")),
    solver('ScheduleTransformedModel(to CosineScheduler), "midpoint"', draw("midpoint", CosineScheduler()), 2),
    solver(
        'ScheduleTransformedModel(to CosineScheduler), "heun2"',
        draw("heun2", CosineScheduler()),
        2,
        fails=(END, LIMIT, ORDER),
        remark=_PAST + " [`flow_matching_other_scheduler_blows_up`]",
    ),
    conversion("CondOTProbPath().velocity_to_target(u, x, t)", OT.velocity_to_target, "denoiser"),
    conversion("CondOTProbPath().velocity_to_epsilon(u, x, t)", OT.velocity_to_epsilon, "noise"),
    figure_record(
        'ODESolver(model).sample(x, method="heun2")',
        figures.errors(draw("heun2"), {8: 6.72e-3, 16: 2.05e-3, 32: 5.60e-4, 64: 1.46e-4}),
    ),
    figure_record(
        'ODESolver(model).sample(x, method="rk4"), the 3/8 rule', figures.errors(draw("rk4"), {8: 5.76e-6, 16: 1.05e-6})
    ),
    figure_record(
        'ODESolver(lambda x, t: -x).sample(x, step_size=None, method="dopri5")',
        {"largest t asked": (last_time, 1.37, 0.01)},
        "torchdiffeq steps over the end and interpolates back. [`flow_matching_dopri5_past_the_end`]",
    ),
    figure_record(
        "ScheduleTransformedModel(to CosineScheduler), step_size=.1, from 0 (its end is 1)",
        {
            "end by heun2": (lambda: at_cosine("heun2"), -3_133_214.0, 0.5),
            "end by rk4": (lambda: at_cosine("rk4"), -780_570.0, 0.5),
        },
        "Stable in size, not in its digits. [`flow_matching_other_scheduler_blows_up`]",
    ),
    figure_record(
        "schedules at their ends",
        {
            "VPScheduler: alpha at t = 0": (lambda: coefficient(VPScheduler(), "alpha_t", 0.0), 0.006572, 1e-3),
            "CosineScheduler: sigma at t = 1": (lambda: coefficient(CosineScheduler(), "sigma_t", 1.0), -4.4e-8, 0.02),
            "VPScheduler: d_sigma at t = 1": (lambda: coefficient(VPScheduler(), "d_sigma_t", 1.0), -np.inf, 0.0),
            "LinearVPScheduler: d_sigma at t = 1": (
                lambda: coefficient(LinearVPScheduler(), "d_sigma_t", 1.0),
                -np.inf,
                0.0,
            ),
            "PolynomialConvexScheduler(.5): d_alpha at t = 0": (
                lambda: coefficient(PolynomialConvexScheduler(0.5), "d_alpha_t", 0.0),
                np.inf,
                0.0,
            ),
        },
    ),
]
