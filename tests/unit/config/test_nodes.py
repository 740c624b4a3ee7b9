from __future__ import annotations

from omegaconf import OmegaConf

from neurona.config.nodes import key_of, root_of, target_of


def test_omegaconf_tells_the_place_of_a_node() -> None:
    cfg = OmegaConf.create({"model": {"part": {"_target_": "torch.nn.ReLU"}}})
    node = cfg.model.part
    assert target_of(node) == "torch.nn.ReLU"
    assert root_of(node) is cfg, "omegaconf has changed"
    assert key_of(node) == "model.part", "omegaconf has changed"
