"""Is it slower than it was? Comparisons with a stated false-alarm rate, and what they rest on.

Models and environments are measured side by side (:mod:`hwprof.regression.side_by_side`) and
judged in pairs; stored measurements by how far they move from session to session
(:mod:`hwprof.regression.stored`).
"""
