"""Faults injected into short runs, and what they lose."""
