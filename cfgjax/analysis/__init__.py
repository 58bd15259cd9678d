"""Measures of fields and solves: likelihoods and importance weights, guidance along a solve, residuals, schedules, sweeps."""

from __future__ import annotations
