"""Training: batches, steps, checkpoints, and how good what was trained is."""
