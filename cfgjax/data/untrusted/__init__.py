"""Readers of what somebody else may have written: bounded, and no code is run."""

from __future__ import annotations
