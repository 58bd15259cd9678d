"""Devices, processes, signals, batches and progress."""
