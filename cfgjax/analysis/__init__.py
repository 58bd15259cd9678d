"""Measures of fields and solves: likelihoods, importance weights, guidance along a solve, residuals, reuse, sweeps."""

from __future__ import annotations
