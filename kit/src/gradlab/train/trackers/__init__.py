"""Where a run's metrics are shown: TensorBoard's files, W&B, MLflow, trackio."""
