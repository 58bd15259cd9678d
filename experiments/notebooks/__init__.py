"""Notebooks for the reader: scripts in percent format, and the notebooks that are built of them."""
