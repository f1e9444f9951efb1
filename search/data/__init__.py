"""Images: tasks, where they come from, and how they are varied for training."""
