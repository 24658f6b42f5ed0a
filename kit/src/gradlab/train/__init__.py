"""A training that carries on: randomness by key, checkpoints, metrics. Knows no workflow."""
