"""What is learned: kinds of data."""
