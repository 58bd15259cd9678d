"""hackable_diffusion: time 1 is noise, from 1 - 1e-6 to 1e-6; n grid points are n - 1 updates, the last by finalize."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hackable_diffusion.lib.corruption.gaussian import GaussianProcess
from hackable_diffusion.lib.corruption.schedules import CosineSchedule, RFSchedule
from hackable_diffusion.lib.inference.guidance import LimitedIntervalGuidanceFn, ScalarGuidanceFn
from hackable_diffusion.lib.sampling import gaussian_step_sampler as steps
from hackable_diffusion.lib.sampling.base import StepInfo

from cfgjax.types import Array, Field
from experiments.conformance.bridge import Guide, guider
from experiments.conformance.figures import figures
from experiments.conformance.jax_bridge import Draw, denoiser_of, law, solver
from experiments.conformance.names import END, LABELLED, LIMIT, NULL, ORDER, OTHER, law_at
from experiments.conformance.records import Record


def guide(make: Callable[[float], Any]) -> Guide:
    """A guidance function of predictions by their names."""

    def call(sides: tuple[np.ndarray, np.ndarray], w: float, x: np.ndarray, t: float) -> np.ndarray:
        labelled, null = ({"velocity": jnp.asarray(side)} for side in sides)
        found = make(w)(jnp.asarray(x), {}, jnp.full((len(x), 1), t), labelled, null)
        return np.asarray(found["velocity"])

    return call


def draw(make: Callable[[Any], Any], schedule: Any = None) -> Draw:
    """A step's own loop of n updates, ONE example as a batch of one."""
    schedule = schedule or RFSchedule()

    def sample(field: Field, key: Array, x: Array, n_steps: int) -> Array:
        step, times = make(GaussianProcess(schedule=schedule)), jnp.linspace(1 - 1e-6, 1e-6, n_steps + 1)

        def info(i: Any) -> Any:
            return StepInfo(step=i, time=jnp.full((1, 1), times[i]), rng=jax.random.fold_in(key, i))

        def guess(state: Any, i: Any) -> dict[str, Array]:
            levels = (part(times[i][None])[0] for part in (schedule.alpha, schedule.sigma))
            return {"x0": denoiser_of(field)(state.xt[0], *levels)[None]}

        state = step.initialize(x[None], info(jnp.asarray(0)))
        state = jax.lax.fori_loop(0, n_steps - 1, lambda i, s: step.update(guess(s, i), s, info(i + 1)), state)
        return step.finalize(guess(state, n_steps - 1), state, info(jnp.asarray(n_steps))).xt[0]

    return sample


def made(name: str, **settings: float) -> Callable[[Any], Any]:
    """A step of a process."""
    return lambda process: getattr(steps, name)(corruption_process=process, **settings)


def guided_at(t: float) -> float:
    """Guidance by 1 within [.25, .75] of labelled 1 and null 0."""
    limited = guide(lambda w: LimitedIntervalGuidanceFn(guidance=w, lower=0.25, upper=0.75))
    one, zero = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
    return float(limited((one, zero), 1.0, zero, t)[0, 0])


def last_of_adjusted(count: int) -> float:
    """Where the first of so many states ends by ten updates of AdjustedDDIMStep, the data being the point 5."""
    process = GaussianProcess(schedule=RFSchedule())
    step, times = made("AdjustedDDIMStep")(process), jnp.linspace(1 - 1e-6, 1e-6, 11)
    x = jax.random.normal(jax.random.key(0), (3, 2))[:count]

    def info(i: int) -> Any:
        return StepInfo(step=jnp.asarray(i), time=jnp.full((count, 1), times[i]), rng=jax.random.key(i))

    state = step.initialize(x, info(0))
    for i in range(9):
        state = step.update({"x0": jnp.full((count, 2), 5.0)}, state, info(i + 1))
    return float(step.finalize({"x0": jnp.full((count, 2), 5.0)}, state, info(10)).xt[0, 0])


_TOWARDS_ZERO = (
    "The predicted data are multiplied by alpha of this time, not of the next. [`hackable_diffusion_adjusted_ddim`]"
)
_STIFF = (
    "Its noise is largest at time 1, where the schedule's alpha is 1e-6: 64 equal steps are too few, 256 are enough."
)
RECORDS: list[Record] = [
    guider(
        "ScalarGuidanceFn(guidance=w)",
        guide(lambda w: ScalarGuidanceFn(guidance=w)),
        fails=(NULL, LABELLED, OTHER),
        remark="Another convention, as documented: w = 1 + `guidance`.",
    ),
    guider("ScalarGuidanceFn(guidance=w - 1)", guide(lambda w: ScalarGuidanceFn(guidance=w - 1))),
    solver("DDIMStep(process, stoch_coeff=0.), RFSchedule", draw(made("DDIMStep", stoch_coeff=0.0)), 1),
    solver(
        "DDIMStep(process, stoch_coeff=0.), CosineSchedule",
        draw(made("DDIMStep", stoch_coeff=0.0), CosineSchedule()),
        1,
    ),
    solver("VelocityStep(process, stoch_coeff=0.), RFSchedule", draw(made("VelocityStep", stoch_coeff=0.0)), 1),
    solver("SdeStep(process, churn=0.), CosineSchedule", draw(made("SdeStep", churn=0.0), CosineSchedule()), 1),
    solver(
        "AdjustedDDIMStep(process), RFSchedule",
        draw(made("AdjustedDDIMStep")),
        1,
        fails=(END, LIMIT, ORDER),
        remark=_TOWARDS_ZERO,
    ),
    law("DDIMStep(process, stoch_coeff=1.), RFSchedule", draw(made("DDIMStep", stoch_coeff=1.0))),
    law(
        "SdeStep(process, churn=1.), RFSchedule",
        draw(made("SdeStep", churn=1.0)),
        fails=law_at(64),
        remark=_STIFF,
    ),
    law("SdeStep(process, churn=1.), CosineSchedule", draw(made("SdeStep", churn=1.0), CosineSchedule())),
    law(
        "AdjustedDDIMStep(process), RFSchedule",
        draw(made("AdjustedDDIMStep")),
        fails=law_at(64, 256),
        remark=_TOWARDS_ZERO,
    ),
    figures(
        "AdjustedDDIMStep(process), ten updates, the data being the point 5",
        {
            "a state ends elsewhere in a batch of three than alone": (
                lambda: float(last_of_adjusted(1) != last_of_adjusted(3)),
                1.0,
                0.0,
            ),
            "and at 5 (1 - 1 / 10), or near it": (lambda: last_of_adjusted(1), 4.465, 0.002),
        },
        "The size of its noise is taken over the whole batch. [`hackable_diffusion_adjusted_ddim`]",
    ),
    figures(
        "LimitedIntervalGuidanceFn(guidance=1., lower=.25, upper=.75), labelled 1, null 0",
        {
            f"time {t:g}": (lambda t=t: guided_at(t), before, 1e-6)
            for t, before in {0.2: 1.0, 0.25: 2.0, 0.5: 2.0, 0.75: 2.0, 0.8: 1.0}.items()
        },
        "Closed at both ends; `guidance.interval` is not at its second.",
    ),
]
