"""What a run is made by: the schema of its settings, and samplers by name."""
