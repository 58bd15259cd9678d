"""The explorer: one page that shows what every rule samples, with nothing else to load."""
