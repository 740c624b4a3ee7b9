"""What a message says is to be written instead is written instead, as it is printed, until nothing is refused.

``remedies.txt`` has commands that run, by ``$`` (those before the last, and the shell's by ``!``, prepare it), what the
last one prints, and after ``>`` what is then written: what comes after ``with`` and ``without`` is not printed, but
goes with it, or is taken out. After ``> $`` follows a command of the shell as it is printed, after ``> !`` one that
does what is said; where it makes a table, that is read then.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import neurona
from neurona.cli.composing import composed, composing
from neurona.config.check import check, check_imported
from neurona.config.explain import EXTRAS
from neurona.config.hints import CONFIG_DIR
from neurona.config.overrides import check_single, parse
from neurona.errors import UserError

SOURCE = Path(__file__).parents[2] / "src" / "neurona"
MEANT = {
    "IRIS": "data=iris trainer.max_epochs=1 logger=none quiet=true",
    "TABLE": "data=table data.path=t.csv data.target=label trainer.max_epochs=1 logger=none quiet=true"
    " trainer.callbacks.importance.seconds=0.1",
    "RUN": "logs/iris/run",
}
"""What stands for more in ``remedies.txt``."""

BEYOND = """
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, IterableDataset
from neurona.classifier import Classifier
from neurona.data.spec import DataSpec

class Margin(Classifier):
    pass

class Net(torch.nn.Linear):
    def __init__(self, num_features, num_classes, block):
        super().__init__(num_features, num_classes)

class Rows(IterableDataset):
    def __init__(self, dtype):
        self.dtype = dtype

    def __iter__(self):
        return ((torch.rand(4, dtype=self.dtype), index % 2) for index in range(64))

class Streamed(LightningDataModule):
    def __init__(self, is_double=False):
        super().__init__()
        self.dtype = torch.float64 if is_double else torch.float32

    def setup(self, stage):
        self.spec = DataSpec(num_features=4, num_classes=2, class_names=("no", "yes"))

    def train_dataloader(self):
        return DataLoader(Rows(self.dtype), batch_size=8)

    val_dataloader = test_dataloader = train_dataloader
"""
"""A module that is not beside ``train.py``."""

ROWS = [f"{i % 7},{i * 37 % 11},{'ab'[i % 2]},{'no' if i % 3 else 'yes'}" for i in range(60)]

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


BLOCKS = Path(__file__).with_name("remedies.txt").read_text(encoding="utf-8").split("\n\n")
FOLLOWED = [
    ("\n".join(lines), line[2:])
    for block in BLOCKS
    for lines in [[one for one in block.splitlines() if not one.startswith(">")]]
    for line in block.splitlines()
    if line.startswith(">")
]


def in_full(text: str) -> str:
    return re.sub("|".join(MEANT), lambda match: MEANT[match[0]], text)


def in_shell(command: str, env: dict[str, str]) -> None:
    subprocess.run(["bash", "-c", f"{command}; env > .env"], check=True, env=env, timeout=60)


def is_printed(word: str, message: str) -> bool:
    """Whether a message has a word as it is typed, be it with … or a description in <> in its place, or tells in words
    what to give a key.
    """
    printed = re.sub(r"<[^>]*>", "…", message).split()
    patterns = (re.escape(one.rstrip(",;.")).replace("…", r"\S+") for one in printed)
    key, _, value = word.strip("'\"").partition("=")
    is_in_words = message.startswith(f"{key}=") or (key in message and f"{key}=" not in message)
    return (
        word in message
        or is_in_words
        or ("." in value and value in message)
        or any(re.fullmatch(pattern, word) for pattern in patterns)
    )


def replaced(command: list[str], words: list[str]) -> list[str]:
    """A command with these in the place of what it gives for the same keys."""
    keys = {word.partition("=")[0] for word in words}
    return [one for one in command if one.partition("=")[0] not in keys] + words


@pytest.mark.long
@pytest.mark.parametrize(("block", "remedy"), FOLLOWED)
def test_what_a_run_prints_is_accepted(
    train: Any, iris_run: Any, monkeypatch: pytest.MonkeyPatch, block: str, remedy: str
) -> None:
    if "trainer=gpu" in block and (torch.cuda.is_available() or torch.backends.mps.is_available()):
        pytest.skip("there is a GPU")
    if remedy.startswith("$ ") and not shutil.which(remedy.split()[1]):
        pytest.skip(f"there is no {remedy.split()[1]}")
    monkeypatch.syspath_prepend(Path.cwd())
    Path("beyond.py").write_text(BEYOND)
    Path("t.csv").write_text("\n".join(["x,y,c,label", *ROWS, ""]))
    shell = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    *before, last, message = in_full(block).splitlines()
    for line in before:
        if line.startswith("! "):
            in_shell(line[2:], shell)
        else:
            assert train(*shlex.split(line[2:])).status == 0
    command = shlex.split(last.removeprefix("$ "))
    done = train(*command)
    assert f"{message}\n" in (done.err if done.status else done.out)

    if remedy[:2] in ("$ ", "! "):
        assert remedy[0] == "!" or is_printed(remedy[2:], message)
        in_shell(remedy[2:], shell)
        for line in Path(".env").read_text().splitlines():
            if line.startswith("NOWHERE="):
                monkeypatch.setenv(*line.split("=", 1))
        command += [f"data.path={made}" for made in ("new.new.csv", "t.npz") if made in remedy]
    elif remedy.startswith("python train.py "):
        words = shlex.split(in_full(remedy))[2:]
        assert f"python train.py {words[0]}" in message
        command = words
    else:
        written, _, out = in_full(remedy).partition("without ")
        written, _, along = written.partition("with ")
        assert all(is_printed(word, message) for word in shlex.split(written, posix=False))
        keys = shlex.split(out)
        command = [one for one in command if one not in keys and one.partition("=")[0] not in keys]
        command = replaced(command, shlex.split(f"{written} {along}"))
    done = train(*command)
    assert (done.status, done.err) == (0, ""), command


X, Y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 2
SHORT = ["trainer.max_epochs=1", "quiet=true", "logger=none", "trainer.callbacks.importance=null"]

CALLS = [
    ("neurona.run('data=iris')", "neurona.run(['data=iris'])", ""),
    ("neurona.fit(X, Y, {'seed': 3})", "neurona.fit(X, y, ['seed=3'])", ""),
    ("neurona.fit(X, Y, epochs=3)", "neurona.fit(X, y, ['trainer.max_epochs=3'])", ""),
    ("neurona.run([f'run={made}'])", 'neurona.fit(X, y, ["run={made}"])', ""),
    ("neurona.run([f'run={made}', 'stage=test'])", 'neurona.fit(X, y, ["run={made}", "stage=test"])', ""),
    ("neurona.load(own)", 'neurona.load("{own}", allow=["beyond"])', ""),
    (
        "neurona.fit(X, Y, SHORT, validation_data=(X, Y))",
        "rows of your own to validate on go to neurona.fit as X_val= and y_val=",
        "neurona.fit(X, Y, SHORT, X_val=X, y_val=Y)",
    ),
    (
        "neurona.fit({'a': X[:, 0], 'y': X[:, 1]}, Y, SHORT)",
        "rename it, or call y otherwise, as in data.target=label",
        "neurona.fit({'a': X[:, 0], 'y': X[:, 1]}, Y, [*SHORT, 'data.target=label'])",
    ),
    ("neurona.fit(X, np.eye(2)[Y], SHORT)", "give y.argmax(1)", "neurona.fit(X, np.eye(2)[Y].argmax(1), SHORT)"),
]
"""Calls that are refused, what is printed to be written instead, and that, where it is not printed as it is."""


def test_what_a_call_says_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    Path("beyond.py").write_text(BEYOND)
    made, own = tmp_path / "made", tmp_path / "own"
    neurona.fit(X, Y, [*SHORT, f"folder={made}"])
    beyond = ["data=iris", "allow=[beyond]", "classifier._target_=beyond.Margin"]
    neurona.run([*SHORT[:3], *beyond, f"folder={own}"])
    names = {"neurona": neurona, "np": np, "X": X, "Y": Y, "y": Y, "SHORT": SHORT, "made": made, "own": own}
    for call, words, instead in CALLS:
        printed = words.format(made=made, own=own)
        with pytest.raises(UserError) as caught:
            eval(call, names)
        assert printed in str(caught.value)
        assert eval(instead or printed, names) is not None


OTHERS = {
    "no remedies": (
        *("began without", "Could not override", "pip install -U", ", bias=True", "has no effect, because"),
        *("took longer than", "was %s when the run began", "is not the same as on the first call", "class_names for"),
        *("spec.num_", "as in Activation(", "key=value, and a text in it", "goes on with one"),
        *("steps from lr_find.lowest", "add allow=\\[(.+", "neurona.load("),
    ),
    "what to install": ("pip install",),
    "of several processes or a GPU": ("srun", "start one process", "processes are started", "ends at 65504"),
    "followed by the tests of what prints them": (
        *("to continue: python", "write a yaml of its own", "give another place"),
        *("with --out", "tensorboard --logdir", "are the command line's"),
        *("is finished; to train on", "=null measures all"),
    ),
}
"""Texts with a setting in them whose remedy is not tried here, by some of their words."""


def test_extras_that_messages_name_are_the_projects() -> None:
    sources = "".join(file.read_text(encoding="utf-8") for file in SOURCE.rglob("*.py"))
    named = {*EXTRAS.values(), *re.findall(r"-e '\.\[(\w+)\]'", sources)}
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {"export", "slurm", "joblib"} <= named <= project["optional-dependencies"].keys()
    assert (SOURCE.parents[1] / "constraints.txt").is_file()


def texts(tree: ast.Module) -> Iterator[str]:
    """Those of a module, as patterns; no docstrings."""
    aside = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    aside |= {id(part) for node in joined for part in ast.walk(node) if part is not node}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".*?" for part in node.values)
            yield "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in aside:
            yield re.escape(node.value)


@pytest.mark.long
def test_every_setting_that_a_message_prints_is_tried() -> None:
    seen = "\n".join([*BLOCKS, *(refusal([one]) for one in MISTAKES), *(words for _, words, _ in CALLS)])
    untried: list[str] = []
    elsewhere = {words for group in OTHERS.values() for words in group}
    met: set[str] = set()
    for file in sorted(SOURCE.rglob("*.py")):
        for pattern in texts(ast.parse(file.read_text(encoding="utf-8"))):
            text = re.sub(r"\\(.)", r"\1", pattern)
            is_message = re.search(r"[\w?\]]=[^\s=]|python train|pip install|--\w", text) and " " in text.strip()
            if is_message and not re.search(pattern, seen):
                there = {words for words in elsewhere if words in text}
                met |= there
                untried += [] if there else [f"{file.name}: {text}"]
    assert untried == []
    assert elsewhere == met
