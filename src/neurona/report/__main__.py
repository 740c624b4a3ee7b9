"""Compares runs: ``python -m neurona.report PATH… [--metric test/accuracy] [--by KEY…] [--out FOLDER]``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path


def main() -> int:
    """Exit status: 0 done, 2 the user's mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m neurona.report",
        description=(
            "Reads the run folders below the paths, groups those that differ only in their seed, tests the"
            " differences and writes report.csv, report.md, report.html and pictures."
        ),
    )
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="a run, a sweep, or any folder of them")
    parser.add_argument("--metric", help="the figure to compare (test/accuracy)")
    parser.add_argument("--by", nargs="+", default=[], metavar="KEY", help="settings that make a group (all that vary)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to write (report/ in the first path)")
    arguments = parser.parse_args()
    os.environ.setdefault("MPLBACKEND", "agg")  # Optuna draws with pyplot, which would look for a screen
    from neurona.errors import UserError
    from neurona.report.compare import report

    try:
        print(report(arguments.paths, arguments.metric, arguments.by, arguments.out), flush=True)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except BrokenPipeError:  # piped into head: whoever reads has seen enough, and the files are written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
