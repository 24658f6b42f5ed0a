"""Slurm: one of its jobs for each job of a workflow that has to run."""
