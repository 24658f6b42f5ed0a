"""The kit: runs a Gradient Workflow anywhere, and carries a run over the end of a session."""

__version__ = "0.2.0"  # of the kit and of its template, as in the list of changes
