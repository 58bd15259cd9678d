"""Argument checks: one clear error for a bad argument, and silence for a traced number.

(K1) Types, shapes and dtypes are known while JAX traces, and are always checked; a number only where it is concrete.
(K2) A wrong type gets a TypeError, a wrong shape or number a ValueError. Either names the argument, what was given and
     what is allowed, in one line.
"""

from __future__ import annotations

from cfgjax.checks.arrays import as_float64_rows as as_float64_rows
from cfgjax.checks.arrays import evaluated as evaluated
from cfgjax.checks.arrays import flow_map_like_x as flow_map_like_x
from cfgjax.checks.arrays import output_like_x as output_like_x
from cfgjax.checks.arrays import require_arrays as require_arrays
from cfgjax.checks.arrays import require_direction as require_direction
from cfgjax.checks.arrays import require_floats as require_floats
from cfgjax.checks.arrays import require_grid as require_grid
from cfgjax.checks.arrays import require_integers as require_integers
from cfgjax.checks.arrays import require_like as require_like
from cfgjax.checks.arrays import require_point as require_point
from cfgjax.checks.arrays import require_rank as require_rank
from cfgjax.checks.arrays import require_shape as require_shape
from cfgjax.checks.arrays import transpose_of as transpose_of
from cfgjax.checks.conditions import condition_like as condition_like
from cfgjax.checks.conditions import entries as entries
from cfgjax.checks.conditions import require_condition as require_condition
from cfgjax.checks.conditions import require_entries as require_entries
from cfgjax.checks.conditions import require_null as require_null
from cfgjax.checks.conditions import require_rates as require_rates
from cfgjax.checks.kinds import THREEFRY as THREEFRY
from cfgjax.checks.kinds import require_choice as require_choice
from cfgjax.checks.kinds import require_devices as require_devices
from cfgjax.checks.kinds import require_function as require_function
from cfgjax.checks.kinds import require_key as require_key
from cfgjax.checks.kinds import require_kind as require_kind
from cfgjax.checks.kinds import require_own_draws as require_own_draws
from cfgjax.checks.kinds import require_pair as require_pair
from cfgjax.checks.kinds import require_path as require_path
from cfgjax.checks.kinds import require_pathlike as require_pathlike
from cfgjax.checks.kinds import require_str as require_str
from cfgjax.checks.numbers import BELOW_ONE as BELOW_ONE
from cfgjax.checks.numbers import HUGE as HUGE
from cfgjax.checks.numbers import TINY as TINY
from cfgjax.checks.numbers import is_known_as as is_known_as
from cfgjax.checks.numbers import is_number as is_number
from cfgjax.checks.numbers import is_traced as is_traced
from cfgjax.checks.numbers import of_numpy as of_numpy
from cfgjax.checks.numbers import require_between as require_between
from cfgjax.checks.numbers import require_count as require_count
from cfgjax.checks.numbers import require_finite as require_finite
from cfgjax.checks.numbers import require_label as require_label
from cfgjax.checks.numbers import require_number as require_number
from cfgjax.checks.numbers import require_positive as require_positive
from cfgjax.checks.numbers import require_real as require_real
from cfgjax.checks.numbers import require_scalar as require_scalar
from cfgjax.checks.numbers import require_time as require_time
from cfgjax.checks.numbers import require_whole as require_whole
from cfgjax.checks.numbers import short_repr as short_repr
from cfgjax.checks.scales import require_scale as require_scale
from cfgjax.checks.scales import require_schedule as require_schedule
from cfgjax.checks.scales import takes_condition as takes_condition
from cfgjax.checks.scales import takes_label as takes_label
