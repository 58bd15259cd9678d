"""Samples of a run, and the files that they become."""
