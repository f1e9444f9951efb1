"""Search: what drives one is here, and everything else in rooms of its own.

:mod:`~hwprof.search.strategy` is the interface of a strategy, :mod:`~hwprof.search.runner` runs one.
``strategies`` and ``proxyless`` decide, ``scoring`` judges networks, ``learning`` trains them,
``supernets`` and ``data`` are what is trained and on what; ``reducing`` makes spaces smaller.
Importing the package imports no torch.
"""

from hwprof._callable import make_callable

make_callable(__name__)
