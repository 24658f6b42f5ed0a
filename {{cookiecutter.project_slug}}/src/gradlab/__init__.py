"""The kit: runs a Gradient Workflow anywhere, and carries a run over the end of a session."""

__version__ = "0.1.0"  # of the template, as in its list of changes
