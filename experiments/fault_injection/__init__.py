"""Faults done to short runs, and what they lose."""
