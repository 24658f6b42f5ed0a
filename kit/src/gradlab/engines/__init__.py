"""Where a job runs: in a container, under bubblewrap, on this machine."""
