"""Real refusals of Hydra and OmegaConf, explained."""

from __future__ import annotations

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import MissingConfigException

from neurona.config import hints
from neurona.config.explain import explain, show
from neurona.config.hints import CONFIG_DIR
from neurona.errors import ConfigError, RunError, UserError


def refusal(*overrides: str, folder: Path = CONFIG_DIR) -> UserError:
    with initialize_config_dir(str(folder), version_base="1.3"), pytest.raises(Exception) as caught:  # noqa: PT011
        compose("train", list(overrides), return_hydra_config=True)
    return explain(caught.value, overrides)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.hiden=[3]", "model.hiden=[3]: no such key; did you mean model.hidden?"),
        ("modle.hidden='[3]'", "modle.hidden='[3]': no such key; did you mean model.hidden?"),
        ("hydra.verbos=true", "hydra.verbos=true: no such key; did you mean hydra.verbose?"),
        ("data.path='a=b.csv'", "data.path='a=b.csv': no such key here; it belongs to data=table"),
        ("trainer.barebones=true", "lightning.pytorch.Trainer takes it: add it with +trainer.barebones=true"),
        ("model=mpl", "model=mpl: no such choice; did you mean mlp?"),
        ("optimizer=NAdam", "optimizer=NAdam: no such choice; did you mean nadam?"),
        ("optimizer.schedule.warmup_fraction=0.2", "no such key here; it belongs to optimizer/schedule=cosine"),
        ("model=5", "model=5: is no choice; there are linear, mlp"),
        ("~nothing", "nothing"),
        ("optimizer/schedules=cosine", "optimizer/schedules=cosine: no such key; did you mean optimizer/schedule?"),
        ("+model=linear", "model=linear: model has another choice already; write model=linear without a +"),
        ("optimizer=adamax", "any other of torch's, or of your own, is a yaml: docs/extending.md#an-optimiser"),
        ("+model.dropout=0.2", "model.dropout=0.2: is there already; write model.dropout=0.2 without the +"),
        ("++model=linear", "model=linear: a group takes no ++; write model=linear"),
        ("model.hidden.x=1", "hidden is a list without a place x; give the whole list, model.hidden=[…]"),
        ("model.hidden.7=1", "hidden is a list without a place 7; give the whole list, model.hidden=[…]"),
        ("~model.hidden.x", "hidden is a list without a place x; give the whole list, model.hidden=[…]"),
        ("seed=[", "a bracket is not closed"),
        ("model=configs/model/mlp.yaml", "model=configs/model/mlp.yaml: no such choice; did you mean mlp?"),
        ("optimizer/schedule=a/cosin", "optimizer/schedule=a/cosin: no such choice; did you mean cosine?"),
        (
            "data=/x/a.csv",
            "data=/x/a.csv: no such choice; a file is read by data=table data.path=/x/a.csv data.target=",
        ),
    ],
)
def test_a_refusal_in_this_projects_words(override: str, message: str) -> None:
    error = refusal("seed=1", override)
    assert message in str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\n  b: 2\n", "mine.yaml:2: '  b: 2' is not valid yaml; write key: value"),
        ("a:1\nb: 2\n", "mine.yaml:1: 'a:1' is not valid yaml"),
        ("a: 1\nb=2\n", "mine.yaml:2: 'b=2' is not valid yaml"),
        ("a:\n\t- 1\n", r"mine.yaml:2: '\t- 1' is not valid yaml"),
        ("a:\n  *.bias: 1\n", "mine.yaml:2: '  *.bias: 1' is not valid yaml"),
        ("a: [1\nb: 2\n", "mine.yaml:1: 'a: [1' is not valid yaml"),
        ("a: 1\na: 2\n", "mine.yaml:2: found duplicate key a; leave one out"),
        ("defaults:\n  - override model: mlp\n", "must write - override model: … as - override /model: …"),
        (
            "# @package _global_\ndefaults: [override /modle: mlp]\n",
            "overrides modle, which is in no defaults list; did you mean model?",
        ),
        (
            "defaults: [classifier/default]\n",
            "names classifier/default, which classifier does not have; write - default",
        ),
        ("defaults: {default: 1}\n", "the defaults of its yaml must be a list"),
    ],
)
def test_a_yaml_that_cannot_be_used(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "train.yaml").write_text("defaults: [classifier: mine, model: mlp, _self_]\nseed: 0\n")
    for file, content in (("classifier/mine", text), ("model/mlp", "a: 1\n")):
        (tmp_path / file).with_suffix(".yaml").parent.mkdir()
        (tmp_path / file).with_suffix(".yaml").write_text(content)
    error = str(refusal(folder=tmp_path))
    assert message in error
    assert "\n" not in error


def test_a_yaml_of_other_characters_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "train.yaml").write_text("defaults: [model: mlp, _self_]\n")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mlp.yaml").write_bytes(b"a: caf\xe9\n")
    monkeypatch.setattr(hints, "CONFIG_DIR", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert str(refusal(folder=tmp_path)).startswith("model/mlp.yaml is not in UTF-8 (")


def test_a_group_within_another_whose_yaml_has_no_line_for_it(tmp_path: Path) -> None:
    (tmp_path / "optimizer" / "schedule").mkdir(parents=True)
    for name, text in (("train", "defaults: [optimizer: mine, _self_]\n"), ("optimizer/mine", "lr: 1\n")):
        (tmp_path / name).with_suffix(".yaml").write_text(text)
    (tmp_path / "optimizer" / "schedule" / "cosine.yaml").write_text("a: 1\n")
    error = str(refusal("optimizer/schedule=cosine", folder=tmp_path))
    assert error.startswith("optimizer/schedule=cosine: the yaml of the optimizer has no defaults: with the lines")
    assert error.endswith("; add them, or write +optimizer/schedule=cosine")


def test_an_experiment_is_no_configuration_of_its_own() -> None:
    error = MissingConfigException("Cannot find primary config 'lesson'. Config search path: provider=hydra", "lesson")
    assert str(explain(error)).endswith("; it is chosen by experiment=lesson")


def test_a_launcher_of_another_package() -> None:
    error = MissingConfigException("", "hydra/launcher/submitit_slurm", ["basic"])
    assert "pip install -c constraints.txt -e '.[slurm]'" in str(explain(error))


def test_a_yaml_that_sets_what_hydra_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("hydra: {verbos: true}\nseed: 0\n")
    assert "verbos" in str(refusal("seed=1", folder=tmp_path))


def test_a_mistake_is_shown_as_a_line_a_defect_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert show(ConfigError("seed", 0, "is wrong")) == 2
    assert capsys.readouterr().err == "seed=0: is wrong\n"
    assert show(RunError("NaN"), job="job 3: ") == 1
    assert capsys.readouterr().err == "job 3: NaN\n"
    assert show(KeyError("x")) == 1
    assert "KeyError" in capsys.readouterr().err
