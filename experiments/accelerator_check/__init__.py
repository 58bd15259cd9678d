"""Checks of the library on an accelerator that is there for minutes only."""
