"""What the notebook asks for: an installation, a run to watch, what it made."""
