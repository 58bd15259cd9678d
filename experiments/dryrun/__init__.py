"""Programs compiled for accelerators that need not be there, and what their text says."""
