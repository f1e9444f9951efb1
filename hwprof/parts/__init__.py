"""Which part of a model is slow: operator traces, corrected, grouped and reconciled."""
