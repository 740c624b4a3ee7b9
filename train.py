"""``python train.py --help``. Torch is imported only once the command line has been understood."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from neurona import command, config, launch


def train(cfg: DictConfig) -> None:
    """Runs one stage of one configuration."""
    hydra = HydraConfig.get()
    unread = config.check(cfg, hydra.runtime.choices)
    if number := launch.count(cfg):
        launch.run(number, hydra)
        return
    from neurona.stages import run_composed

    run_composed(cfg, unread)


if __name__ == "__main__":
    command.main(train, Path(__file__).parent / "configs")
