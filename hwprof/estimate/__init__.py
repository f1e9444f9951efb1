"""From measured networks to numbers about blocks: effects, latency models, and their intervals."""
