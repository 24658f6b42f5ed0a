"""The kit: runs a Gradient Workflow anywhere, and carries a run over the end of a session."""
