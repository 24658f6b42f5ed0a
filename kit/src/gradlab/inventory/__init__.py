"""All that a storage keeps, seen from above: which runs there are, and what can go."""
