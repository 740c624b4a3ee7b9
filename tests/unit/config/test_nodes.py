from __future__ import annotations

from omegaconf import OmegaConf

from neurona.config.nodes import key_of, leaves, path_of, plain, root_of


def test_omegaconf_tells_the_place_of_a_node() -> None:
    cfg = OmegaConf.create({"model": {"part": {"_target_": "torch.nn.ReLU"}}})
    node = cfg.model.part
    assert root_of(node) is cfg, "omegaconf has changed"
    assert key_of(node) == "model.part", "omegaconf has changed"


def test_the_leaves_of_plain_values_have_dotted_keys() -> None:
    plain = {"a": 1, "b": {"c": [2, {"d": 3}]}, "e": {}}
    assert [*leaves(plain)] == [("a", 1), ("b.c", 2), ("b.c.d", 3)]


def test_a_class_has_the_path_that_a_node_names_it_by() -> None:
    assert path_of(OmegaConf) == "omegaconf.omegaconf.OmegaConf"
    cfg = OmegaConf.create({"a": 1, "node": {"b": "${a}", "c": ["${a}"]}})
    assert plain(cfg.node) == {"b": 1, "c": [1]}
