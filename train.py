"""``python train.py --help``. Torch is imported only once the command line has been understood."""

from pathlib import Path

from omegaconf import DictConfig

from neurona import command


def train(cfg: DictConfig) -> None:
    """Runs one stage of one configuration."""
    from neurona.stages import run_composed

    run_composed(cfg)


if __name__ == "__main__":
    command.main(train, Path(__file__).parent / "configs")
