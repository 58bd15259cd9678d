"""The published methods that steer by a measurement, in one table: what each costs, and where it is exact."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from cfgjax.checks import TINY, is_known_as, short_repr
from cfgjax.conversions import denoiser_of
from cfgjax.piecewise import Piecewise
from cfgjax.steering.covariances import diffpir, mmps, pi_gdm, tmpd
from cfgjax.steering.daps import daps, decoupled_annealing, gaussian_refinement, relative_langevin_step
from cfgjax.steering.denoised import value_at
from cfgjax.steering.likelihoods import dps, dps_normalized
from cfgjax.steering.measurements import log_likelihood
from cfgjax.steering.replacement import repaint, replacement
from cfgjax.types import Array, Field, GaussianPath, Measurement, Number, Schedule, Solver

SteeringScale = Number | Schedule
"""A number or a function of t: 0 for the field alone, 1 for the method as it is published."""

Rule = Callable[[GaussianPath, Any, Measurement, SteeringScale], Any]
"""``(path, field, measurement, scale) -> field`` of the same signature."""

AnySolver = Solver | Piecewise[Solver]
MakeSolver = Callable[[Field], AnySolver]
"""``field -> Solver``, as ``solvers.heun`` is."""
BuildSteered = Callable[[GaussianPath, Field, Measurement, Callable[[Field], Any]], AnySolver]
"""``(path, field, measurement, make_solver) -> Solver`` of a method."""
SCALE_0 = "scale 0"


class SteeringMethod(NamedTuple):
    """A method, by what makes it and what is known of it.

    ``make_solver`` makes its solver of (path, field, measurement, make_solver, scale), the field being one of (x, t);
    ``rule`` is the rule on fields of a method that is one, else None. ``evaluations`` and ``products`` (with the
    network's Jacobian) are those that it makes for each evaluation that ``make_solver`` alone would make; of
    ``decoupled``, which solves no field, in each step. One that is not ``is_graded`` knows the scales 0 and 1 alone.
    """

    name: str
    make_solver: Callable[[GaussianPath, Field, Measurement, MakeSolver, SteeringScale], AnySolver]
    paper: str
    space: str
    evaluations: int
    products: int
    neutral: str
    exact_when: str
    needs_noise: bool = False
    rule: Rule | None = None
    is_graded: bool = True


def of_rule(name: str, rule: Rule, **known: Any) -> SteeringMethod:
    """The method of a rule on fields: the solver is made of the field that the rule makes."""

    def make_solver(
        path: GaussianPath, field: Field, measurement: Measurement, make_solver: MakeSolver, scale: SteeringScale
    ) -> AnySolver:
        return make_solver(rule(path, field, measurement, scale))

    return SteeringMethod(name, make_solver, rule=rule, **known)


def of_solver(name: str, build: BuildSteered, **known: Any) -> SteeringMethod:
    """The method of a solver; at a scale known as 0 the one that ``make_solver`` makes of the field."""

    def make_solver(
        path: GaussianPath, field: Field, measurement: Measurement, make_solver: MakeSolver, scale: SteeringScale
    ) -> AnySolver:
        if is_known_as(scale, 0):
            return make_solver(field)
        if not is_known_as(scale, 1):
            raise ValueError(f"scale must be 0 or 1, known, for {name}, got {short_repr(scale)}")
        return build(path, field, measurement, make_solver)

    return SteeringMethod(name, make_solver, is_graded=False, neutral=SCALE_0, **known)


def _decoupled(path: GaussianPath, field: Field, measurement: Measurement, _: MakeSolver) -> Solver:
    """Decoupled annealing from the denoiser, with the exact draw of a linear measurement."""
    return decoupled_annealing(path, denoiser_of(path, field), gaussian_refinement(path, measurement))


def _daps(path: GaussianPath, field: Field, measurement: Measurement, make_solver: Callable[[Field], Any]) -> Solver:
    step_size = relative_langevin_step(path, measurement.noise_std)
    return daps(path, field, log_likelihood(measurement), step_size, make_solver)


def _inverse(scale: SteeringScale) -> SteeringScale:
    """lambda = 1 / scale of ``diffpir``, infinite for a scale known as 0, else finite."""
    if is_known_as(scale, 0):
        return float("inf")

    def of(t: Array) -> Array:
        return 1 / jnp.maximum(value_at(scale, t), TINY)

    return of


DENOISED, STATE, DATA = "the denoised estimate", "the state", "a draw of the data point"

METHODS: dict[str, SteeringMethod] = {
    each.name: each
    for each in (
        of_rule(
            "dps",
            dps,
            paper="Chung et al., arXiv 2209.14687",
            space=DENOISED,
            evaluations=1,
            products=1,
            neutral=SCALE_0,
            exact_when="one Gaussian v I and A A^T = a I, with the scale s^2 / (s^2 + r^2 a) of t",
            needs_noise=True,
        ),
        of_rule(
            "dps_normalized",
            dps_normalized,
            paper="Chung et al., arXiv 2209.14687, algorithm 1",
            space=DENOISED,
            evaluations=1,
            products=1,
            neutral=SCALE_0,
            exact_when="never",
        ),
        of_rule(
            "pi_gdm",
            pi_gdm,
            paper="Song et al., ICLR 2023",
            space=DENOISED,
            evaluations=1,
            products=1,
            neutral=SCALE_0,
            exact_when="one Gaussian v I, with its v as prior_variance",
        ),
        of_rule(
            "tmpd",
            tmpd,
            paper="Boys et al., arXiv 2310.06721",
            space=DENOISED,
            evaluations=1,
            products=2,
            neutral=SCALE_0,
            exact_when="one Gaussian and A V A^T diagonal, as for one measured number",
        ),
        of_rule(
            "mmps",
            mmps,
            paper="Rozet et al., arXiv 2405.13712",
            space=DENOISED,
            evaluations=1,
            products=4,
            neutral=SCALE_0,
            exact_when="one Gaussian, with as many iterations as measured numbers",
        ),
        of_rule(
            "diffpir",
            lambda path, field, measurement, scale: diffpir(path, field, measurement, _inverse(scale)),
            paper="Zhu et al., arXiv 2305.08995",
            space=DENOISED,
            evaluations=1,
            products=0,
            neutral=SCALE_0 + ", which is the strength 1 / scale = infinity",
            exact_when="one Gaussian v I, with the strength 1 + beta^2 / (alpha^2 v) of t",
        ),
        of_solver(
            "replacement",
            lambda path, field, known, make_solver: replacement(path, make_solver(field), known),
            paper="Song et al., arXiv 2011.13456, appendix I",
            space=STATE,
            evaluations=1,
            products=0,
            exact_when="A z known without noise, and independent of the rest",
        ),
        of_solver(
            "repaint",
            lambda path, field, known, make_solver: repaint(path, make_solver(field), known),
            paper="Lugmayr et al., arXiv 2201.09865",
            space=STATE,
            evaluations=10,
            products=0,
            exact_when="as replacement",
        ),
        of_solver(
            "daps",
            _daps,
            paper="Zhang et al., arXiv 2407.01521",
            space=DATA,
            evaluations=5,
            products=0,
            exact_when="never",
            needs_noise=True,
        ),
        of_solver(
            "decoupled",
            _decoupled,
            paper="Zhang et al., arXiv 2407.01521, with the denoiser and without Langevin steps",
            space=DATA,
            evaluations=1,
            products=0,
            exact_when="one Gaussian I",
        ),
    )
}
"""The name of every method -> its record."""
