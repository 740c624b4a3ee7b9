"""One contender in a process of its own: makes it, then trains once for every number of epochs it reads.

Reads from stdin and writes answers, one JSON object a line, to the file descriptor given. Standard output belongs to
the libraries.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from clock import Clock
from contenders import CONTENDERS, Job, Repeat
from networks import Network


def make(request: dict[str, Any]) -> Repeat:
    """The contender that is asked for, ready to train."""
    contender = CONTENDERS[request["contender"]]
    if "tensorflow" not in contender.requires:
        sys.modules["tensorflow"] = None  # type: ignore[assignment]  # TensorBoard would import it if it is there
    job = Job(Network(**request["network"]), Path(request["folder"]), request["threads"], request["device"])
    return contender.make(job)


def timed(repeat: Repeat, epochs: int) -> dict[str, Any]:
    """Trains once, after an untimed epoch: what it came to, and how long it took."""
    clock = Clock()
    outcome = repeat(epochs, clock)
    times = {name: getattr(clock, name) for name in ("seconds", "step_seconds", "cpu_seconds")}
    return {**outcome._asdict(), **times}


def main(request: dict[str, Any]) -> None:
    with os.fdopen(request["descriptor"], "w", encoding="utf-8") as answers:

        def answer(**fields: Any) -> None:
            answers.write(json.dumps(fields) + "\n")
            answers.flush()

        try:
            os.chdir(request["folder"])
            repeat = make(request)
            answer()
            for line in sys.stdin:
                answer(**timed(repeat, int(line)))
        except Exception:
            answer(error=traceback.format_exc())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
