"""Parts of the ladder of methods that steer by a measurement."""
