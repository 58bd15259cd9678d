"""One adapter for each library, imported by its child process alone."""
