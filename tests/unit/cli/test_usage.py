"""What ``--help`` says of the keys is what stands beside them in the yamls."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from neurona.cli import usage
from neurona.config.hints import CONFIG_DIR

YAMLS = [str(file.relative_to(CONFIG_DIR).with_suffix("")) for file in sorted(CONFIG_DIR.rglob("*.yaml"))]


@pytest.mark.parametrize("name", YAMLS)
def test_every_comment_belongs_to_a_key_of_its_yaml(name: str) -> None:
    """Against omegaconf's reading: a line with a comment gives its key's value, and the comment has all of the rest."""
    text = (CONFIG_DIR / f"{name}.yaml").read_text(encoding="utf-8")
    own = re.sub(r"^defaults:\n((?: .*)?\n)+", "", text, flags=re.MULTILINE)
    comments = usage._comments(name, [CONFIG_DIR])
    for line in own.splitlines():
        if (match := re.match(r" *(\w+):.* # (.*)$", line)) and "#N/A" not in line:
            assert any(key.split(".")[-1] == match[1] and comment == match[2] for key, comment in comments.items())
    declared = OmegaConf.to_container(OmegaConf.create(text))
    keys = {key for key in comments if _has(declared, key)}
    assert len(keys) >= len(re.findall(r"^ *\w+:.* # ", own, re.MULTILINE))


def _has(node: object, key: str) -> bool:
    for name in key.split("."):
        if not isinstance(node, dict) or name not in node:
            return False
        node = node[name]
    return True


def test_the_main_keys_are_listed_with_their_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = usage.usage("train", ["seed=7"], CONFIG_DIR)
    assert text.startswith("neurona: python train.py")
    assert re.search(r"^  seed=7 +decides the weights at the start", text, re.MULTILINE)
    assert re.search(r"^  model.hidden=\[128,64\] +width of each hidden layer$", text, re.MULTILINE)
    assert re.search(r"^  trainer.max_epochs=30 +passes over the training rows$", text, re.MULTILINE)
    assert re.search(r"^  trainer.callbacks.early_stopping.patience=null\n? +validations without", text, re.MULTILINE)
    assert "  optimizer/schedule: constant, cosine" in text
    assert max(map(len, text.splitlines())) <= 120
    assert len(text.splitlines()) < 100


def test_other_choices_show_other_keys(tmp_path: Path) -> None:
    text = usage.usage("train", ["data=table", "model=tabm"], CONFIG_DIR)
    assert "  data.target=???" in text
    assert "model.members=8" in text
    assert "model.residual" not in text
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.yaml").write_text("_target_: a.B\nwidth: 3 # of everything\n")
    text = usage.usage("train", [f"hydra.searchpath=[file://{tmp_path}]", "model=mine"], CONFIG_DIR)
    assert re.search(r"^  model.width=3 +of everything$", text, re.MULTILINE)
