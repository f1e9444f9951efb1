"""Search: the reducer, accuracy sources, and one file a strategy.

Importing the package imports no torch; import what is needed from its modules
(:mod:`hwprof.search.strategy` for the interface, :mod:`hwprof.search.runner` to run one).
"""

from hwprof._callable import make_callable

make_callable(__name__)
