"""What is wrong in a workflow file, and what it looks like."""
