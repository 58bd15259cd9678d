"""What is measured of a run, by kind of data."""
