"""What is kept: datasets and their versions, drafts, copies on slow storage, models."""
