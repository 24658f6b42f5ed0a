"""Gradient Workflows: a spec is read, checked, shown and run on any machine."""
