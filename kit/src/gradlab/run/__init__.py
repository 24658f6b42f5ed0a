"""A run of a workflow: what is to be done, doing it, what came of it."""
