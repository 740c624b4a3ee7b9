from __future__ import annotations

import pytest

from neurona.config import hints

DECLARED = [
    "model",
    "model.hidden",
    "model.dropout",
    "trainer",
    "trainer.max_epochs",
    "optimizer",
    "optimizer.lr",
    "optimizer.schedule",
]


def test_key_paths_leave_out_what_hydra_reads() -> None:
    nested = {"model": {"_target_": "x.Y", "hidden": [1], "part": {"size": 2}}, "seed": 0}
    assert list(hints.key_paths(nested)) == ["model", "model.hidden", "model.part", "model.part.size", "seed"]


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("model.hiden", "did you mean model.hidden?"),
        ("modle.hidden", "did you mean model.hidden?"),
        ("optimizer.LR", "did you mean optimizer.lr?"),
        ("hidden", "did you mean model.hidden?"),
        ("learning_rate", "here it is optimizer.lr"),
        ("schedule", "did you mean optimizer/schedule?"),
        ("optimizer.schedul.x", "did you mean optimizer.schedule?"),
        ("trainer.epochs", "here it is trainer.max_epochs"),
        ("model.zzz", "model has hidden, dropout"),
        ("model.layers", "here it is model.hidden"),
        ("momentum", "here it is optimizer.momentum, with optimizer=muon, optimizer=rmsprop and optimizer=sgd"),
        ("classifier.loss", "a loss of your own is a classifier: docs/extending.md#a-loss"),
        (
            "optimizer.groups.head.lr",
            "patterns for names are a mapping, in quotes: 'optimizer.groups={head.*:{lr:1e-4}}'",
        ),
        ("optimizer.warmup_epochs", "optimizer has lr, schedule"),
        ("experiments", "did you mean experiment?"),
        (
            "zzz",
            "the configuration has model, trainer, optimizer, classifier, data, debug, experiment, inspect, logger,"
            " sweep",
        ),
    ],
)
def test_unknown_key(key: str, hint: str) -> None:
    assert hints.unknown_key(key, DECLARED) == f"no such key; {hint}"


def test_a_key_whose_name_begins_another() -> None:
    assert hints.unknown_key("block.x", ["block", "blocks", "blocks.y"]) == "no such key; block has none"


def test_a_key_of_another_choice_of_its_group() -> None:
    assert hints.other_choice("data.path") == "no such key here; it belongs to data=table"
    assert hints.other_choice("data.nothing") == ""
    there = "optimizer/schedule=cosine"
    assert hints.other_choice("optimizer.schedule.warmup_fraction") == f"no such key here; it belongs to {there}"
    assert hints.other_choice("trainer.callbacks.importance.seconds") == "no such key here; it belongs to data=table"
    assert hints.other_choice("trainer.max_epochs") == "no such key here; it belongs to trainer=auto"
    assert hints.other_choice("trainer.batch_size") == hints.other_choice("sed") == ""
    assert hints.other_choice("logger.wandb.project") == "no such key here; it belongs to logger=wandb"
    assert hints.unknown_key("logger.csv.save_dir", ["logger.x.save_dir"]) == hints.other_choice("logger.csv.save_dir")


def test_a_choice_in_place_of_a_node() -> None:
    assert hints.choice("optimizer.schedule", "cosin").endswith("with a slash: optimizer/schedule=cosine")
    assert hints.choice("model.hidden", "abc") == ""
