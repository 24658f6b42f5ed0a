"""A training that carries on: randomness by key, checkpoints, metrics. Knows no workflow."""

import os

# TensorFlow reads it when it is loaded, and else says much about itself.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
