"""Commands: `python -m convergent sweep …` and `python -m convergent diff …`."""

import argparse
import sys

from . import diff_command, sweep_command


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m convergent", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (sweep_command, diff_command):
        command.add_to(commands)
    options = parser.parse_args(arguments)
    return options.run(options)


if __name__ == "__main__":
    sys.exit(main())
