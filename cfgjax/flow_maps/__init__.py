"""Flow maps: the trajectories of a guided ODE as one function, of a few evaluations or of one.

x_r is where the trajectory of dx = u(x, t) dt through x at t is at r, t <= r, and u the guided field.

(F1) average velocity:  U(x, t, r) = (x_r - x) / (r - t),     x_r = x + (r - t) U(x, t, r).
(F2) at r = t:          U(x, t, t) = u(x, t).
(F3) identity:          U = u + (r - t) dU/dt,                dU/dt = d_t U + (d_x U) u, along the trajectory.
(F4) semigroup:         from t to s and on to r is from t to r.

A FlowMap is a function (x, t, r, ...) -> U of ONE example; its further arguments are y, and after it w. Time runs from
noise (t = 0) to data (t = 1); in papers in which it runs the other way t and r stand for 1 - t and 1 - r, and U for -U.

Known maps are ``exact``, of a mixture, ``gaussian``, between two normal laws (F5 to F7), and ``of_field``, by the steps
of a solver. They go to the noise, too, where r < t; learned ones go forwards only.

Source: Geng et al., arXiv 2505.13447 (MeanFlow); Boffi et al., arXiv 2406.07507 (flow map matching).
"""

from __future__ import annotations

from cfgjax.flow_maps.closed_form import Gaussian as Gaussian
from cfgjax.flow_maps.closed_form import gaussian as gaussian
from cfgjax.flow_maps.consistency_models import consistency as consistency
from cfgjax.flow_maps.consistency_models import consistency_distillation as consistency_distillation
from cfgjax.flow_maps.consistency_models import continuous_consistency as continuous_consistency
from cfgjax.flow_maps.conversions import average_velocity_of as average_velocity_of
from cfgjax.flow_maps.conversions import field_of as field_of
from cfgjax.flow_maps.conversions import flow_of as flow_of
from cfgjax.flow_maps.conversions import forward_only as forward_only
from cfgjax.flow_maps.conversions import given as given
from cfgjax.flow_maps.derivatives import central_difference as central_difference
from cfgjax.flow_maps.derivatives import forward_derivative as forward_derivative
from cfgjax.flow_maps.distillation import eulerian as eulerian
from cfgjax.flow_maps.distillation import lagrangian as lagrangian
from cfgjax.flow_maps.distillation import pass_gradient as pass_gradient
from cfgjax.flow_maps.distillation import progressive as progressive
from cfgjax.flow_maps.exact import exact as exact
from cfgjax.flow_maps.exact import of_field as of_field
from cfgjax.flow_maps.from_data import improved_mean_flow as improved_mean_flow
from cfgjax.flow_maps.from_data import mean_flow as mean_flow
from cfgjax.flow_maps.from_data import shortcut as shortcut
from cfgjax.flow_maps.regression import residual_power as residual_power
from cfgjax.flow_maps.times import ordered_times as ordered_times
from cfgjax.flow_maps.times import step_times as step_times
from cfgjax.flow_maps.times import times_until as times_until
from cfgjax.flow_maps.velocities import conditional_velocity as conditional_velocity
from cfgjax.flow_maps.velocities import guided_velocity as guided_velocity
from cfgjax.flow_maps.velocities import model_guidance_kappa as model_guidance_kappa
from cfgjax.flow_maps.velocities import teacher_velocity as teacher_velocity
from cfgjax.types import TimesDensity as TimesDensity
from cfgjax.types import Velocity as Velocity
