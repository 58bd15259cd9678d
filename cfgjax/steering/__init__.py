"""Steering by rewards and measurements: field in, field out, or a population of weighted particles.

(S1) What a measurement says of a point: ``measurements``; linear operators: ``operators``.
(S2) Corrections by the denoised estimate, field -> field, after guidance: by any log-likelihood of clean data,
     ``universal``, ``dps``; with a covariance of z given x, ``pi_gdm``, ``tmpd``, ``mmps``, ``diffpir``; by projection,
     ``projected_constraint``. What they have in common: ``denoised``. ``METHODS`` is the table of all methods.
(S3) Stochastic steps of any correlation by the ODE's field: ``glass``.
(S4) The measured part of a state replaced, after each step of any solver: ``replacement``, ``repaint``.
(S5) A data point by its measurement in each step, made noisy anew: ``daps``, ``decoupled_annealing``.
(S6) Rewards r_t(x), of the denoised estimate, of the state, of a label: ``rewards``; and weighted particles of the law
     p_t e^(r_t): ``tilted``, ``twisted``; those of any stochastic solver, by weights alone: ``fk_steering``.
"""

from __future__ import annotations

from cfgjax.steering import operators as operators
from cfgjax.steering.constraints import affine_projection as affine_projection
from cfgjax.steering.constraints import projected_constraint as projected_constraint
from cfgjax.steering.covariances import diffpir as diffpir
from cfgjax.steering.covariances import mmps as mmps
from cfgjax.steering.covariances import pi_gdm as pi_gdm
from cfgjax.steering.covariances import tmpd as tmpd
from cfgjax.steering.daps import daps as daps
from cfgjax.steering.daps import decoupled_annealing as decoupled_annealing
from cfgjax.steering.daps import gaussian_refinement as gaussian_refinement
from cfgjax.steering.daps import langevin_refinement as langevin_refinement
from cfgjax.steering.daps import ode_estimate as ode_estimate
from cfgjax.steering.daps import relative_langevin_step as relative_langevin_step
from cfgjax.steering.fk_steering import RewardsSeen as RewardsSeen
from cfgjax.steering.fk_steering import difference as difference
from cfgjax.steering.fk_steering import fk_steering as fk_steering
from cfgjax.steering.fk_steering import maximum as maximum
from cfgjax.steering.fk_steering import smc as smc
from cfgjax.steering.fk_steering import total as total
from cfgjax.steering.glass import constant_correlation as constant_correlation
from cfgjax.steering.glass import glass as glass
from cfgjax.steering.glass import markov_correlation as markov_correlation
from cfgjax.steering.likelihoods import ascent as ascent
from cfgjax.steering.likelihoods import classifier_likelihood as classifier_likelihood
from cfgjax.steering.likelihoods import dps as dps
from cfgjax.steering.likelihoods import dps_normalized as dps_normalized
from cfgjax.steering.likelihoods import universal as universal
from cfgjax.steering.measurements import log_likelihood as log_likelihood
from cfgjax.steering.measurements import measure as measure
from cfgjax.steering.methods import METHODS as METHODS
from cfgjax.steering.methods import SteeringMethod as SteeringMethod
from cfgjax.steering.particles import draws as draws
from cfgjax.steering.particles import tilted as tilted
from cfgjax.steering.particles import twisted as twisted
from cfgjax.steering.replacement import repaint as repaint
from cfgjax.steering.replacement import replacement as replacement
from cfgjax.steering.rewards import annealed as annealed
from cfgjax.steering.rewards import of_denoised as of_denoised
from cfgjax.steering.rewards import of_label as of_label
from cfgjax.types import Measurement as Measurement
