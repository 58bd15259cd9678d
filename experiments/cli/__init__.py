"""The shell of the commands: options, errors, streams, and what a process sets before it starts."""
