"""What a workflow file says, read with the place of each word in it."""
