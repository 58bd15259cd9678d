"""Steering by rewards and measurements: field in, field out, or a population of weighted particles.

(B) what a measurement says of a point: ``measurements``; linear operators: ``operators``.
"""

from __future__ import annotations

from cfgjax.steering import operators as operators
from cfgjax.steering.measurements import log_likelihood as log_likelihood
from cfgjax.steering.measurements import measure as measure
from cfgjax.types import Measurement as Measurement
