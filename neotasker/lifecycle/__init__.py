"""The life of a supervisor: start, stop, the registry, the end of the process."""
