"""ProxylessNAS: architecture parameters, their steps, and searches for a target or a front."""
