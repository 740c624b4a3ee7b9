"""What a message says is to be written instead is written instead, as it is printed, until nothing is refused."""

from __future__ import annotations

import re

import pytest

from neurona.cli.composing import composed, composing
from neurona.config.check import check, check_imported
from neurona.config.hints import CONFIG_DIR
from neurona.config.overrides import check_single, parse
from neurona.errors import UserError

MISTAKES = """
model.hiden=[3]
modle.hidden=[3]
hidden=[3]
+sede=1
+trainer.max_epocs=1
epochs=3
batch_size=16
learning_rate=0.1
momentum=0.9
units=[3]
width=[3]
layers=[3]
validation_split=0.2
gradient_clip_val=1
accumulate_grad_batches=2
random_state=3
gpus=1
log_dir=logs/mine
lr_find.step=50
optimizer.schedule.warmup_fraction=0.2
optimizer/schedule.warmup_fraction=0.2
logger.wandb.project=mine
+logger.csv=true
model.members=4
model.normalization=bach
data.scaling=unity
stage=tset
trainer.precision=bf16-mixd
model=mpl
model=Linear
model=configs/model/linear.yaml
data=mnits
optimizer=NAdam
experiment=leson
optimizer/schedule=cosin
+model=linear
++model=linear
+model.dropout=0.2
optimizer.schedule=cosine
trainer.barebones=true
model.hidden=(64,64)
optimizer/sgd
validate
data = iris
--optimizer.lr=3e-4
optimizer._target_=torch.optim.SGD
model._target_=neurona.models.mlp.MPL
model._target_=neuron.models.mlp.MLP
""".strip().splitlines()


def refusal(arguments: list[str]) -> str:
    """What is printed of a command; nothing where it is accepted."""
    try:
        check_single(parse(arguments))
        with composing(CONFIG_DIR):
            cfg, hydra = composed("train", arguments)
            check_imported(check(cfg, hydra.runtime.choices), cfg)
    except UserError as error:
        return str(error)
    return ""


def followed(wrong: str, message: str) -> list[str]:
    """The overrides that the message asks for in the place of one. Fails where it asks for none."""
    key, _, value = wrong.lstrip("+").partition("=")
    verbs = "write|choose|add it with|made with a slash:|is chosen by"
    if line := re.search(rf"(?:{verbs}) (\S+=.*?)(?: without .*)?$", message):
        return [line[1]]
    if meant := re.search(r"did you mean ([^?]+)\?", message):
        if "no such key" in message:
            return [f"{meant[1]}={value}"]
        is_part = "_target_" in key and "." not in meant[1]  # of a dotted path
        return [f"{key}={meant[1] + value[value.index('.') :] if is_part else meant[1]}"]
    if here := re.search(r"here it is (\S+?)(?:, with .*?(\S+=\S+))?$", message):
        return [*filter(None, [here[2]]), f"{here[1]}={value}"]
    owner = re.search(r"it belongs to (?:.* and )?(\S+=\S+)$", message)
    assert owner, f"no remedy in: {message}"
    return [owner[1], wrong]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_printed_is_accepted(mistake: str) -> None:
    arguments = [mistake]
    message = refusal(arguments)
    assert message, "it is no mistake"
    for _ in range(3):
        named = (one for one in arguments if message.startswith(one.lstrip("+").split("=")[0].strip()))
        wrong = next(named, arguments[0])  # or what comes with it
        place = arguments.index(wrong)
        arguments[place : place + 1] = followed(wrong, message)
        message = refusal(arguments)
        if not message:
            return
    raise AssertionError(f"{mistake} → {arguments}: {message}")
