"""diffusers: its guiders, and its schedulers of flow models."""

from experiments.conformance.libraries.diffusers_guiders import GUIDERS
from experiments.conformance.libraries.diffusers_schedulers import FIGURES, LAWS, SOLVERS
from experiments.conformance.records import Record

RECORDS: list[Record] = [*GUIDERS, *SOLVERS, *LAWS, *FIGURES]
