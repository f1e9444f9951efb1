"""``python -m hwprof`` is ``hwprof``."""

from hwprof.cli import main

if __name__ == "__main__":
    main()
