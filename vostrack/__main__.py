"""The program: `vostrack`, and `python -m vostrack` for launchers such as `torchrun` that start modules."""

import signal

# Ctrl-C while modules are imported would print a traceback: until the command line takes over, it ends the process.
_CALM = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if _CALM:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def main() -> None:
    """Run the command line and exit with its code (docs/formats.md lists them)."""
    from vostrack.cli import main as command_line

    if _CALM:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command_line()


if __name__ == "__main__":
    main()
