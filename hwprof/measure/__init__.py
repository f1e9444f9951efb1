"""Measuring: workers, rounds, levels that repeat, and whether they may be trusted."""
