"""A run: its folder, its training loop, and its reading back."""
