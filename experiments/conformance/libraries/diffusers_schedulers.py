"""diffusers: schedulers step flow models. Sigma is 1 for noise, time steps are 1000 sigma, and models predict e - z."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FlowMatchLCMScheduler,
    SASolverScheduler,
    UniPCMultistepScheduler,
)

from experiments.conformance import figures
from experiments.conformance.bridge import Draw, Velocity, law, solver
from experiments.conformance.figures import figures as figure_record
from experiments.conformance.names import CALL, LIMIT, ORDER, law_at

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


def draw(
    make: Callable[[], Any],
    is_grid_given: bool = False,
    is_sigma_time: bool = False,
    is_seeded: bool = True,
    **step_settings: float,
) -> Draw:
    """The loop of every pipeline.

    Args:
        make: the scheduler.
        is_grid_given: sigmas 1, 1 - 1/n, ... are given.
        is_sigma_time: the network is called at the step's sigma, not at its time step, an integer.
        is_seeded: its step takes a generator.
        step_settings: of each step.
    """

    def sample(velocity: Velocity, x: np.ndarray, n_steps: int, seed: int) -> np.ndarray:
        scheduler = make()
        given = {"sigmas": np.linspace(1, 0, n_steps + 1)[:-1].tolist()} if is_grid_given else {}
        scheduler.set_timesteps(n_steps, **given)
        random = {"generator": torch.Generator().manual_seed(seed)} if is_seeded else {}
        state = torch.from_numpy(np.array(x))
        for i, step in enumerate(scheduler.timesteps):
            level = float(scheduler.sigmas[i]) if is_sigma_time else float(step) / 1000
            predicted = torch.from_numpy(-velocity(state.numpy(), 1 - level))
            state = scheduler.step(predicted, step, state, return_dict=False, **random, **step_settings)[0]
        return state.numpy()

    return sample


def multistep(kind: Any, is_sigma_time: bool = False, is_seeded: bool = False, **more: str) -> Draw:
    """A scheduler of diffusion models with a flow's sigmas."""
    return draw(lambda: kind(**more, **FLOW), is_sigma_time=is_sigma_time, is_seeded=is_seeded)


AT_SIGMA = "called at sigma"
_START = "The solve starts at sigma .999 from N(0, I), an error that no steps remove. [`diffusers_flow_grids`]"
_GRID = "Time steps are integers: the network is asked a little beside its step's sigma. " + _START
DPM = multistep(DPMSolverMultistepScheduler, True, True)
UNIPC = multistep(UniPCMultistepScheduler, True)
DEIS = multistep(DEISMultistepScheduler, True)
CHURN_10 = draw(FlowMatchHeunDiscreteScheduler, s_churn=10.0)
CHURN_40 = draw(FlowMatchHeunDiscreteScheduler, s_churn=40.0)
CONSISTENCY = draw(lambda: FlowMatchEulerDiscreteScheduler(stochastic_sampling=True))
_STOPS = "Its sigmas end at the last but one: the last step does not move. [`diffusers_deis_flow_stops_early`]"
_MADE_FOR = "A consistency model's sampler, as meant: of a flow's field it draws another law, with more steps too. "

SOLVERS = [
    solver("FlowMatchEulerDiscreteScheduler()", draw(FlowMatchEulerDiscreteScheduler), 1),
    solver("FlowMatchEulerDiscreteScheduler(), sigmas=", draw(FlowMatchEulerDiscreteScheduler, True), 1),
    solver("FlowMatchEulerDiscreteScheduler(shift=3.)", draw(lambda: FlowMatchEulerDiscreteScheduler(shift=3.0)), 1),
    solver("FlowMatchHeunDiscreteScheduler()", draw(FlowMatchHeunDiscreteScheduler), 2),
    solver(
        "DPMSolverMultistepScheduler(**FLOW)",
        multistep(DPMSolverMultistepScheduler, False, True),
        2,
        fails=(ORDER,),
        remark=_GRID,
    ),
    solver(f"DPMSolverMultistepScheduler(**FLOW), {AT_SIGMA}", DPM, 2, fails=(ORDER,), remark=_START),
    solver("DPMSolverSinglestepScheduler(**FLOW)", multistep(DPMSolverSinglestepScheduler), 2),
    solver(
        "UniPCMultistepScheduler(**FLOW)",
        multistep(UniPCMultistepScheduler),
        2,
        fails=(ORDER,),
        remark=_GRID,
    ),
    solver(f"UniPCMultistepScheduler(**FLOW), {AT_SIGMA}", UNIPC, 2),
    solver(
        'UniPCMultistepScheduler(solver_type="bh1", **FLOW)',
        multistep(UniPCMultistepScheduler, solver_type="bh1"),
        2,
        fails=(CALL,),
        remark="Its last step, to sigma 0, is NaN. [`diffusers_unipc_bh1_nan`]",
    ),
    solver(
        "DEISMultistepScheduler(**FLOW)",
        multistep(DEISMultistepScheduler),
        2,
        fails=(LIMIT, ORDER),
        remark=_STOPS,
    ),
    solver(f"DEISMultistepScheduler(**FLOW), {AT_SIGMA}", DEIS, 2, fails=(ORDER,), remark=_STOPS),
]
LAWS = [
    law("FlowMatchEulerDiscreteScheduler()", draw(FlowMatchEulerDiscreteScheduler)),
    law(
        "FlowMatchEulerDiscreteScheduler(), step(s_churn=40)",
        draw(FlowMatchEulerDiscreteScheduler, s_churn=40.0),
        remark="`s_churn` is taken and does nothing: the same bits as without. [`diffusers_flow_grids`]",
    ),
    law(
        "FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)",
        CONSISTENCY,
        fails=law_at(64, 256),
        remark=_MADE_FOR + "[`diffusers_flow_noise_another_law`]",
    ),
    law(
        "FlowMatchHeunDiscreteScheduler(), step(s_churn=10)",
        CHURN_10,
        fails=law_at(64, 256),
        remark="The noise is that of a variance-exploding model, to which the state is not rescaled. "
        "[`diffusers_flow_noise_another_law`]",
    ),
    law(
        "FlowMatchLCMScheduler()",
        draw(FlowMatchLCMScheduler),
        fails=law_at(64, 256),
        remark=_MADE_FOR,
    ),
    law(
        'DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", **FLOW)',
        multistep(DPMSolverMultistepScheduler, False, True, algorithm_type="sde-dpmsolver++"),
    ),
    law("SASolverScheduler(**FLOW)", multistep(SASolverScheduler, False, True)),
]


def sigmas_of(scheduler: Any, n_steps: int) -> np.ndarray:
    """The noise levels of so many steps."""
    scheduler.set_timesteps(n_steps)
    return scheduler.sigmas.numpy()


def _ignored_churn() -> float:
    pair = [figures.law(draw(FlowMatchEulerDiscreteScheduler, s_churn=churn), 16)[1] for churn in (0.0, 40.0)]
    return pair[0] - pair[1]


def _set_shift() -> Any:
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_shift(3.0)
    return scheduler


def _level(make: Callable[[], Any], index: int) -> Callable[[], float]:
    return lambda: float(sigmas_of(make(), 4)[index])


FIGURES = [
    figure_record(
        "set_timesteps(4): sigmas",
        {
            "FlowMatchEuler, the fourth": (_level(FlowMatchEulerDiscreteScheduler, 3), 0.001, 1e-4),
            "FlowMatchEuler(shift=3.), the fourth": (
                _level(lambda: FlowMatchEulerDiscreteScheduler(shift=3.0), 3),
                0.008929,
                1e-4,
            ),
            "FlowMatchEuler, set_shift(3.), the fourth": (_level(_set_shift, 3), 0.002994, 1e-3),
            "DPMSolverMultistep(**FLOW), the second": (
                _level(lambda: DPMSolverMultistepScheduler(**FLOW), 1),
                0.74925,
                1e-5,
            ),
            "UniPCMultistep(**FLOW), the second": (_level(lambda: UniPCMultistepScheduler(**FLOW), 1), 0.75025, 1e-5),
            "DEISMultistep(**FLOW), the last": (_level(lambda: DEISMultistepScheduler(**FLOW), -1), 0.24975, 1e-5),
            "FlowMatchHeun: evaluations in 4 steps": (
                lambda: float(len(sigmas_of(FlowMatchHeunDiscreteScheduler(), 4)) - 1),
                7.0,
                0.0,
            ),
            "FlowMatchEuler, step(s_churn=40) less without: deviation": (_ignored_churn, 0.0, 0.0),
        },
        'What "4 steps" are. [`diffusers_flow_grids`]',
    ),
    figure_record(
        "FlowMatchEulerDiscreteScheduler(stochastic_sampling=True)",
        {
            f"deviation, {n} steps": (lambda n=n: figures.law(CONSISTENCY, n)[1], before, 0.02)
            for n, before in {16: 0.187, 64: 0.202, 256: 0.208}.items()
        },
    ),
    figure_record(
        "FlowMatchHeunDiscreteScheduler(), step(s_churn=10)",
        figures.laws(CHURN_10, {16: (1.45, 0.45), 64: (1.45, 0.37)}),
    ),
    figure_record(
        "FlowMatchHeunDiscreteScheduler(), step(s_churn=40)",
        figures.laws(CHURN_40, {16: (1.50, 0.48), 64: (1.74, 0.48)}),
    ),
    figure_record(
        f"DPMSolverMultistepScheduler(**FLOW), {AT_SIGMA}",
        figures.errors(DPM, {4: 0.171, 8: 0.0493, 16: 0.000344, 32: 0.00535, 64: 0.00287, 128: 0.00147, 256: 0.000973}),
    ),
    figure_record(
        f"UniPCMultistepScheduler(**FLOW), {AT_SIGMA}",
        figures.errors(UNIPC, {4: 0.1663, 8: 0.04446, 16: 4.109e-4, 32: 2.289e-3, 64: 7.227e-4, 256: 2.1e-5}),
    ),
    figure_record("UniPCMultistepScheduler(**FLOW)", figures.errors(multistep(UniPCMultistepScheduler), {256: 7.1e-4})),
    figure_record(f"DEISMultistepScheduler(**FLOW), {AT_SIGMA}", figures.errors(DEIS, {4: 0.26, 256: 0.0051}, 0.02)),
]
