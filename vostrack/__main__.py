"""`python -m vostrack`: the command line, for launchers such as `torchrun` that start modules."""

from vostrack.cli import main

if __name__ == "__main__":
    main()
