"""Services that a run is handed to, each through its own client."""
