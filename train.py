"""``python train.py --help``. Torch is imported only once the command line has been understood."""

from pathlib import Path

from neurona.cli import command
from neurona.stages import job

if __name__ == "__main__":
    # Tab completion in fish is for scripts with the words @hydra.main in them; command.main uses it.
    command.main(job.run, Path(__file__).parent / "configs")
