"""torchebm: time 0 is noise and the model is the field, as in cfgjax; D of its SDE is sigma^2 / 2."""

from typing import Any

import numpy as np
import torch
from torchebm.interpolants import LinearInterpolant
from torchebm.models.wrappers import ClassifierFreeGuidance
from torchebm.samplers import FlowSampler

from experiments.conformance import figures
from experiments.conformance.bridge import Draw, Velocity, conversion, guider, law, solver
from experiments.conformance.figures import figures as figure_record
from experiments.conformance.names import law_at
from experiments.conformance.records import Record


class Model(torch.nn.Module):
    """What stands for a network."""

    def __init__(self, velocity: Velocity) -> None:
        super().__init__()
        self.velocity = velocity

    def forward(self, x: Any, t: Any, **_: Any) -> Any:
        """The field of a batch at one time."""
        return torch.from_numpy(self.velocity(x.numpy(), float(t.reshape(-1)[0])))


def draw(**settings: Any) -> Draw:
    """The sampler with its settings."""

    def sample(velocity: Velocity, x: np.ndarray, n_steps: int, seed: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(seed)
        sampler = FlowSampler(Model(velocity), **settings)
        return sampler.sample(torch.from_numpy(x.copy()), n_steps=n_steps, generator=generator).numpy()

    return sample


class Sides(torch.nn.Module):
    """A conditional model that says what it is given: label 0 the labelled side, 1 the null one."""

    def __init__(self, sides: tuple[np.ndarray, np.ndarray]) -> None:
        super().__init__()
        self.sides = torch.stack([torch.from_numpy(side) for side in sides])

    def forward(self, x: Any, t: Any, y: Any) -> Any:
        """A side for each row."""
        return self.sides[y, torch.arange(len(x)) % self.sides.shape[1]]


def guide(sides: tuple[np.ndarray, np.ndarray], w: float, x: np.ndarray, t: float) -> np.ndarray:
    """The wrapper around a conditional model."""
    model = ClassifierFreeGuidance(Sides(sides), w, null_condition=1)
    labels = torch.zeros(len(x), dtype=torch.long)
    return model(torch.from_numpy(x), torch.full((len(x),), t), y=labels).numpy()


SDE = 'FlowSampler(model, mode="sde"'
_ENDS = (
    "The default diffusion does not vanish at the end, and the last step of .04 adds no noise: its variance is missing "
    "at any number of steps. [`torchebm_flow_sde_spread`]"
)
_LINEAR = LinearInterpolant()
RECORDS: list[Record] = [
    guider("ClassifierFreeGuidance(model, w, null_condition)", guide),
    *(
        solver(f'FlowSampler(model, integrator="{method}").sample(x, n_steps=n)', draw(integrator=method), order)
        for method, order in {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4, "bosh3": None, "dopri5": None}.items()
    ),
    law(
        SDE + ")",
        draw(mode="sde"),
        (64, 250),
        fails=law_at(64, 250),
        remark=_ENDS + " And with `sample_eps=0` the first diffusion is 1e8.",
    ),
    law(SDE + ", sample_eps=.04)", draw(mode="sde", sample_eps=0.04), (64, 250), fails=law_at(64, 250), remark=_ENDS),
    law(SDE + ', diffusion_form="sigma")', draw(mode="sde", diffusion_form="sigma"), (64, 250)),
    law(
        SDE + ', diffusion_form="constant")',
        draw(mode="sde", diffusion_form="constant"),
        (64, 250),
        fails=law_at(64, 250),
        remark="As documented, the last step of .04 has no noise; a constant diffusion leaves 2 D .04 of variance out.",
    ),
    *(
        law(
            SDE + f', diffusion_form="sigma", last_step={last!r})',
            draw(mode="sde", diffusion_form="sigma", last_step=last),
            (64, 250),
        )
        for last in (None, "Tweedie", "Euler")
    ),
    conversion("LinearInterpolant().velocity_to_score(u, x, t)", _LINEAR.velocity_to_score, "score"),
    conversion("LinearInterpolant().velocity_to_noise(u, x, t)", _LINEAR.velocity_to_noise, "noise"),
    conversion(
        "LinearInterpolant().score_to_velocity(velocity_to_score(u, x, t), x, t)",
        lambda u, x, t: _LINEAR.score_to_velocity(_LINEAR.velocity_to_score(u, x, t), x, t),
        "field",
    ),
    figure_record(
        SDE + ") of N(1, .3^2)",
        {
            f"deviation, {n} steps": (lambda n=n: figures.law(draw(mode="sde"), n)[1], before, 0.03)
            for n, before in {50: 0.359, 250: 0.157, 1000: 0.155}.items()
        },
        "The exact one is .3, at any number of steps. [`torchebm_flow_sde_spread`]",
    ),
]
