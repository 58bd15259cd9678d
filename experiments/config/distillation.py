"""Guidance inside a network, as settings: frozen dataclasses whose fields are the command line's options."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro
from pydantic import Field

from experiments.cli.options import optional
from experiments.config.history import STRICT
from experiments.config.values import Examples, Fraction, NotNegative, Scale, SmallInt

EXACT = "exact"
"""What a teacher is called that is no run: the exact field of a mixture."""
FLOW_MAPS = ("flow_map",)
GUIDED = "guided_field", *FLOW_MAPS
"""The objectives with guidance inside."""
START, STOP = (0.0, 0.5), (0.5, 1.0)
"""The times between which both edges of an interval of guidance are drawn in training."""
LossName = Literal[
    "distilled_guidance", "model_guidance",
    "trajectories", "progressive", "lagrangian", "eulerian", "mean_flow", "improved_mean_flow", "shortcut",
]  # fmt: skip


@dataclass(frozen=True)
class TaughtBy:
    """What a run with guidance inside learns from."""

    __pydantic_config__ = STRICT
    run_dir: Annotated[str, Field(max_length=1024)]
    """The folder of the teacher's run, as it was called, or EXACT."""
    step: Annotated[int, Field(ge=0, le=10**9)] | None = None
    """Of its checkpoint, whose moving average it is; None of EXACT, and until the run begins."""


@dataclass(frozen=True)
class Distillation:
    """Of the objectives guided_field and flow_map: how guidance comes into the network."""

    __pydantic_config__ = STRICT
    loss: Annotated[
        LossName | None, optional("NAME", "distilled_guidance or trajectories; model_guidance or mean_flow")
    ] = None
    """What makes it so, one of cfgjax.losses or cfgjax.flow_maps; by default of a field or a flow map with a teacher,
    and of these without."""
    scales: tuple[Scale, Scale] = (0.0, 4.0)
    """Least and greatest guidance scale that is learned, 1 between them; drawn uniformly for each example."""
    intervals: bool = False
    """Learn flow maps of guidance that acts between two times alone, too, one before and one after 1/2; drawn for half
    of the examples."""
    equal_rate: Fraction = 0.25
    """Of a flow map: probability, 0 to 1, with which r = t, where it is the guided field."""
    kappa: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Without a teacher: share of the guided side, 0 to 1, in what stands in its own target (MeanFlow's kappa)."""
    residual_power: NotNegative = 0.0
    """Of a flow map: p of the weight 1 / (m + 0.001)^p of a mean square m, 0 for none (MeanFlow's is 1)."""
    teacher_steps: SmallInt = 4
    """Steps of Heun's rule by which the teacher's ODE is solved: of the loss trajectories between two of their times,
    of progressive in each half of t to r."""
    trajectories: Examples = 65_536
    """Of the loss trajectories: how many are solved before training."""
    num_times: SmallInt = 16
    """Parts, even in time, into which each of these is divided."""
    whole_rate: Fraction = 0.4
    """Of a flow map with a teacher: probability, 0 to 1, with which t and r are 0 and 1, the way of one evaluation."""
    teacher: Annotated[TaughtBy | None, tyro.conf.Suppress] = None
    """What it learns from; None for the data alone."""
