"""Inverse problems of pictures, solved by a run's field and a method of steering."""
