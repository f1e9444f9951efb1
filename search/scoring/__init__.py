"""Accuracy sources: supernets, tables, predictors, and proxies that need no training."""
