"""What the explorer shows: the ladder's rules in 2-D, by which solvers and noise, at which guidance scales."""

from collections.abc import Mapping
from typing import NamedTuple

from cfgjax import paths
from cfgjax.types import GaussianPath
from experiments.ladder.problems import Problem
from experiments.ladder.rules import NUM_STEPS, OWN, Row


class Method(NamedTuple):
    """A solver as the page names it.

    Attributes:
        title: its name.
        ode: the ladder's solver for sigma = 0.
        sde: that for the other sigmas; None where it has no noise.
    """

    title: str
    ode: str
    sde: str | None = None


class Rung(NamedTuple):
    """A rule by a solver of the ladder, with a strength of its noise."""

    rule: str
    solver: str
    sigma: float


class Scene(NamedTuple):
    """All that the page is computed of.

    Attributes:
        rules: the ladder's rows by name.
        problem: the mixture, in 2-D.
        path: from noise to data.
        methods: the solvers; a rule without any of them is a solver itself.
        sigmas: strengths of the noise, of those with noise; the first is 0.
        scales: the guidance scales, increasing.
        num_steps: of every solver, a multiple of ``num_frames``.
        num_frames: intervals of time at whose ends the states are kept.
        num_measured: samples by which a law is measured.
        num_shown: the first of them, whose states are kept.
        half_width: of the picture, whose centre is the origin.
        about: what the mixture is, in a sentence.
    """

    rules: Mapping[str, Row]
    problem: Problem = Problem(2)
    path: GaussianPath = paths.linear()
    methods: tuple[Method, ...] = (
        Method("Heun", "heun"),
        Method("Euler", "euler", "euler_maruyama"),
        Method("UniPC", "unipc"),
    )
    sigmas: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0)
    scales: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
    num_steps: int = NUM_STEPS
    num_frames: int = 16
    num_measured: int = 1024
    num_shown: int = 256
    half_width: float = 1.7
    about: str = "Nine Gaussians in the plane belong to three labels in turn, with unequal weights."

    @property
    def ways(self) -> list[tuple[int, str, float]]:
        """Method's place, solver and sigma of every way to solve."""
        return [
            (place, solver, sigma)
            for place, method in enumerate(self.methods)
            for sigma in self.sigmas
            if (solver := method.ode if sigma == 0 else method.sde) is not None
        ]

    def rungs_of(self, rule: str) -> list[Rung | None]:
        """The rung of a rule for every way to solve: None where it does not go with the solver."""
        names = self.rules[rule].solvers
        if OWN in names:
            return [Rung(rule, OWN, 1.0)] * len(self.ways)
        return [Rung(rule, solver, sigma) if solver in names else None for _, solver, sigma in self.ways]

    @property
    def rungs(self) -> list[Rung]:
        """All that is sampled."""
        found = (rung for rule in self.rules for rung in self.rungs_of(rule) if rung is not None)
        return list(dict.fromkeys(found))


def small(rules: Mapping[str, Row]) -> Scene:
    """A scene of few samples and scales, by Heun's and Euler's rule, which is made in a minute."""
    scales, methods = (0.0, 1.0, 2.0, 4.0), (Method("Heun", "heun"), Method("Euler", "euler", "euler_maruyama"))
    return Scene(rules, methods=methods, sigmas=(0.0, 1.0), scales=scales, num_measured=128, num_shown=64)
