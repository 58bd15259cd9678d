"""Measures of fields and solves: likelihoods, what guidance does along a solve, residuals against the truth, sweeps."""

from __future__ import annotations
