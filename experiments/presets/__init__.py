"""The presets, what they need and what they reach."""
