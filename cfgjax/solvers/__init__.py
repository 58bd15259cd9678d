"""Solvers: a rule for one step, and the one scan that repeats it.

(S1) ODE  dx = u dt: ``euler`` (order 1), ``midpoint``, ``heun``, ``adams_bashforth`` (2), ``rk4`` (4); exponential, in
     denoiser space: ``ddim`` (1), ``dpm_solver``, ``unipc`` (2). With step control by diffrax: ``solvers.adaptive``.
(S2) SDE  dX = [u + sigma_t^2 s / 2] dt + sigma_t dW: ``euler_maruyama`` (weak order 1), ``stochastic_heun`` (2).
(S3) an ODE step from a state made noisier again: ``churn``.
(S4) a step followed by Langevin steps: ``langevin_corrected``, ``predictor_corrector_guidance``.
(S5) the last step of (S2) to (S4) without noise: ``with_final_step``.
(S6) guidance within the step: ``cfg_plus_plus``, ``rectified_cfg_plus_plus``, ``manifold_projected`` by ``picard`` or
     ``anderson``, ``with_field_state``; in several solves, ``gibbs_like``.
(S7) from data to noise and exactly back: ``implicit_euler``, ``reversible``.
(S8) a population of particles with weights, ``population``: for the law that guidance is often taken to sample,
     ``feynman_kac``. By the weights ``systematic_resampling`` draws of it; ``effective_sample_size`` says how many
     equal ones they are worth.

(S9) No solver evaluates a field where an error of a prediction, be it denoiser, noise or score, is multiplied without
     bound: not at t = 1 nor just beside it, not just above t = 0. How, and at what price: ``solvers.ends``. An SDE
     whose sigma^2 is not O(beta) at t = 1 has such a drift itself, sigma^2 E / (2 beta), which no step avoids: there
     a denoiser's errors grow as 1 / h.
(S10) by a flow map in a field's place, one evaluation a step: ``jump``, ``renoised_jump``.

``time_grids`` holds the time grids, ``diffusions`` the coefficients sigma_t.
"""

from __future__ import annotations

from cfgjax.solvers import time_grids as time_grids
from cfgjax.solvers.cfg_plus_plus import cfg_plus_plus as cfg_plus_plus
from cfgjax.solvers.cfg_plus_plus import effective_scale as effective_scale
from cfgjax.solvers.churn import churn as churn
from cfgjax.solvers.diffusions import constant as constant
from cfgjax.solvers.diffusions import decreasing as decreasing
from cfgjax.solvers.diffusions import increasing_decreasing as increasing_decreasing
from cfgjax.solvers.diffusions import memoryless as memoryless
from cfgjax.solvers.diffusions import root_beta as root_beta
from cfgjax.solvers.diffusions import root_linear as root_linear
from cfgjax.solvers.exponential import ddim as ddim
from cfgjax.solvers.exponential import dpm_solver as dpm_solver
from cfgjax.solvers.exponential import unipc as unipc
from cfgjax.solvers.feynman_kac import feynman_kac as feynman_kac
from cfgjax.solvers.final_step import euler_step as euler_step
from cfgjax.solvers.final_step import mean_step as mean_step
from cfgjax.solvers.final_step import tweedie_step as tweedie_step
from cfgjax.solvers.final_step import with_final_step as with_final_step
from cfgjax.solvers.gibbs import gibbs_like as gibbs_like
from cfgjax.solvers.integrate import integrate as integrate
from cfgjax.solvers.integrate import remat as remat
from cfgjax.solvers.integrate import solve as solve
from cfgjax.solvers.inversion import implicit_euler as implicit_euler
from cfgjax.solvers.inversion import reversible as reversible
from cfgjax.solvers.jump import jump as jump
from cfgjax.solvers.jump import renoised_jump as renoised_jump
from cfgjax.solvers.langevin import diffusion_step as diffusion_step
from cfgjax.solvers.langevin import langevin_corrected as langevin_corrected
from cfgjax.solvers.langevin import predictor_corrector_guidance as predictor_corrector_guidance
from cfgjax.solvers.langevin import relative_step as relative_step
from cfgjax.solvers.manifold import anderson as anderson
from cfgjax.solvers.manifold import manifold_projected as manifold_projected
from cfgjax.solvers.manifold import picard as picard
from cfgjax.solvers.nfe import num_function_evaluations as num_function_evaluations
from cfgjax.solvers.nfe import num_vector_jacobian_products as num_vector_jacobian_products
from cfgjax.solvers.ode import adams_bashforth as adams_bashforth
from cfgjax.solvers.ode import euler as euler
from cfgjax.solvers.ode import heun as heun
from cfgjax.solvers.ode import midpoint as midpoint
from cfgjax.solvers.ode import rk4 as rk4
from cfgjax.solvers.population import Particle as Particle
from cfgjax.solvers.population import ParticleCarry as ParticleCarry
from cfgjax.solvers.population import effective_sample_size as effective_sample_size
from cfgjax.solvers.population import population as population
from cfgjax.solvers.population import systematic_resampling as systematic_resampling
from cfgjax.solvers.rectified import rectified_cfg_plus_plus as rectified_cfg_plus_plus
from cfgjax.solvers.sde import euler_maruyama as euler_maruyama
from cfgjax.solvers.sde import stochastic_heun as stochastic_heun
from cfgjax.solvers.stateful import with_field_state as with_field_state
