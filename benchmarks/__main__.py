"""`python -m benchmarks NAME [options]`: one program by name; `all` runs each in turn."""

import importlib
import sys

PROGRAMS = ("command", "updates", "placement", "builds", "listing", "memory", "vhd", "hosts", "overload")


def main() -> int:
    """Run the program named by the first word, with the words after it."""
    words = sys.argv[1:]
    if not words or words[0] not in (*PROGRAMS, "all"):
        print(f"usage: python -m benchmarks {{{','.join((*PROGRAMS, 'all'))}}} [--help]", file=sys.stderr)
        return 2
    for name in PROGRAMS if words[0] == "all" else words[:1]:
        importlib.import_module(f"benchmarks.{name}").main(words[1:])
    return 0


if __name__ == "__main__":
    sys.exit(main())
