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
from contenders import CONTENDERS, Job
from networks import Network


def main(request: dict[str, Any]) -> None:
    with os.fdopen(request["descriptor"], "w", encoding="utf-8") as answers:

        def answer(**fields: Any) -> None:
            answers.write(json.dumps(fields) + "\n")
            answers.flush()

        try:
            contender = CONTENDERS[request["contender"]]
            if "tensorflow" not in contender.requires:
                sys.modules["tensorflow"] = None  # type: ignore[assignment]  # TensorBoard would import it if it is there
            job = Job(Network(**request["network"]), Path(request["folder"]), request["threads"], request["device"])
            os.chdir(job.folder)
            repeat = contender.make(job)
            answer()
            for line in sys.stdin:
                clock = Clock()
                outcome = repeat(int(line), clock)
                answer(
                    **outcome._asdict(),
                    seconds=clock.seconds,
                    step_seconds=clock.step_seconds,
                    cpu_seconds=clock.cpu_seconds,
                )
        except Exception:
            answer(error=traceback.format_exc())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
