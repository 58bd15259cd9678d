"""Measures of fields and solves: likelihoods and importance weights, guidance along a solve, residuals, sweeps."""

from __future__ import annotations
