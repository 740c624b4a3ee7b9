from __future__ import annotations

import os
import sys
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from neurona.config.check import Unread, check_imported, from_groups
from neurona.config.check import check as check_config
from neurona.errors import ConfigError
from neurona.models.activations import ACTIVATIONS

TREE = {
    "train": """
        defaults: [{model: mlp}, {optimizer: adam}, {trainer: lightning}, {logger: csv}, _self_, {experiment: null}]
        stage: fit
        run: null
        init_from: null
        folder: null
        seed: 0
        threads: null
        quiet: false
        tags: []
        allow: []
        limits: {rows: 10, name: all, exact: false, columns: [1], classes: {}}
        """,
    "model/mlp": """
        _target_: neurona.models.mlp.MLP
        hidden: [128, 64]
        activation: relu
        normalization: none
        dropout: 0.0
        """,
    "model/linear": "_target_: neurona.models.linear.Linear",
    "model/mine": """
        _target_: my_networks.Deep
        depth: 3
        block: {_target_: torch.nn.modules.linear.Linear, in_features: 2, out_features: 2}
        """,
    "model/unset": "{_target_: neurona.models.mlp.MLP, hidden: '???'}",
    "optimizer/adam": """
        defaults: [{schedule: constant}, _self_]
        _target_: torch.optim.Adam
        lr: 1e-3
        betas: [0.9, 0.999]
        """,
    "optimizer/schedule/constant": "_target_: neurona.schedule.constant",
    "optimizer/schedule/cosine": "{_target_: neurona.schedule.cosine, warmup_fraction: 0.05}",
    "trainer/lightning": """
        _target_: lightning.pytorch.Trainer
        max_epochs: 3
        precision: 32-true
        profiler: null
        callbacks:
          stopping: {_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss, patience: 3}
        """,
    "logger/csv": "csv: {_target_: neurona.inspection.loggers.Csv, save_dir: '${folder}'}",
    "logger/board": """
        board: {_target_: lightning.pytorch.loggers.TensorBoardLogger, save_dir: '${folder}', max_queue: 5}
        """,
    "extra/board": "# @package logger\nextra: {_target_: neurona.inspection.loggers.Csv, save_dir: x}",
    "experiment/good": """
        # @package _global_
        defaults: [{override /model: linear}]
        seed: 3
        """,
    "experiment/no_header": "seed: 1",
    "experiment/with_run": "# @package _global_\nrun: elsewhere",
    "experiment/bad_root": "# @package _global_\nsede: 1",
    "experiment/bad_nested": "# @package _global_\nmodel: {hiden: [3]}",
    "experiment/bad_trainer": "# @package _global_\ntrainer: {max_epocs: 3}",
    "experiment/bad_callback": "# @package _global_\ntrainer: {callbacks: {other: {_traget_: x}}}",
    "experiment/bad_group": "# @package _global_\nmodel: linear",
    "experiment/late_schedule": "# @package _global_\noptimizer: {schedule: {factor: 1}}",
}
MY_NETWORKS = """
    import typing
    import torch
    from neurona.models.mlp import MLP

    raise RuntimeError("must not be imported by a check")

    class Base(torch.nn.Module):
        def __init__(self, num_features: int, *, depth: int, width: "int | None" = None, block: torch.nn.Module = None):
            pass

    class Deep(Base):
        pass

    class Focused(MLP):
        def __init__(self, *args, gamma: float = 2.0, **kwargs):
            super().__init__(*args, **kwargs)
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("configs")
    for name, text in TREE.items():
        file = root / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text).strip() + "\n")
    return root


@pytest.fixture
def my_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_networks.py").write_text(textwrap.dedent(MY_NETWORKS))
    monkeypatch.syspath_prepend(str(tmp_path))


@cache
def composed(tree: Path, *choices: str) -> DictConfig:
    with initialize_config_dir(str(tree), version_base="1.3"):
        return compose("train", list(choices), return_hydra_config=True)


@cache
def base(tree: Path, *choices: str) -> dict[str, Any]:
    chosen = composed(tree, *choices).hydra.runtime.choices
    with initialize_config_dir(str(tree), version_base="1.3"):
        return from_groups(chosen, "train")


def check(tree: Path, *overrides: str) -> Unread:
    """As after composing with these overrides; each set of choices is composed once, as that takes most of the time."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    values = [o for o in parsed if not (tree / o.key_or_group).is_dir() or isinstance(o.value(), dict)]
    choices = [str(o.input_line) for o in parsed if o not in values]
    full = composed(tree, *choices)
    cfg = OmegaConf.masked_copy(full, [key for key in full if key != "hydra"])
    for override in values:
        parent, _, name = override.key_or_group.rpartition(".")
        with open_dict(cfg):
            if override.is_delete():
                del OmegaConf.select(cfg, parent)[name]
            else:
                OmegaConf.update(cfg, override.key_or_group, override.value(), force_add=True)
    declared = base(tree, *choices)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neurona.config.check.from_groups", lambda *_: declared)
        return check_config(cfg, full.hydra.runtime.choices)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["experiment=good"],
        ["optimizer/schedule=cosine", "optimizer.schedule.warmup_fraction=0"],
        ["optimizer._target_=torch.optim.NAdam", "+optimizer.momentum_decay=0.1", "+optimizer.clip_norm=1"],
        ["~optimizer.schedule", "+optimizer.groups={head.*:{lr:0.1},*.bias:{weight_decay:0,betas:[0,0.5]}}"],
        ["model.hidden=3"],
        ["model.hidden=[3,4]", "model.activation=[relu,tanh]", "model.dropout=0"],
        ["~model.hidden"],
        ["trainer.max_epochs=null", "trainer.precision=bf16-mixed", "trainer.profiler=simple"],
        ["+trainer.gradient_clip_val=0.5", "+trainer.devices=[0,1]", "+trainer.limit_train_batches=0.5"],
        ["trainer.callbacks.stopping=null"],
        ["+trainer.callbacks.lr._target_=lightning.pytorch.callbacks.LearningRateMonitor"],
        ["trainer.profiler={_target_:lightning.pytorch.profilers.SimpleProfiler}"],
        ["logger=board", "logger.board.max_queue=3"],
        ["logger=[csv,board]"],
        ["tags=[a,b]", "limits.rows=2.5", "+limits.classes.any=1", "limits.name=3"],
        ["optimizer.lr=1", "folder=somewhere"],
        ["+extra=board"],
    ],
)
def test_allowed(tree: Path, overrides: list[str]) -> None:
    check_imported(check(tree, *overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+sede=1"], "sede=1: no such key; did you mean seed?"),
        (["experiment=bad_root"], "sede=1: no such key; did you mean seed?"),
        (["experiment=bad_nested"], "model.hiden=[3]: no such key; did you mean model.hidden?"),
        (["experiment=bad_trainer"], "trainer.max_epocs=3: no such key; did you mean trainer.max_epochs?"),
        (["experiment=bad_callback"], "trainer.callbacks.other={'_traget_': 'x'}: needs a _target_"),
        (["experiment=bad_group"], "model=linear: must be a mapping"),
        (
            ["experiment=late_schedule"],
            "optimizer.schedule.factor=1: no such key here; it belongs to optimizer/schedule=plateau",
        ),
        (["+hidden=3"], "hidden=3: no such key; did you mean model.hidden?"),
        (["+limits.rwos=3"], "limits.rwos=3: no such key; did you mean limits.rows?"),
        (["+model.zzz=3"], "no such key; model has num_features, num_classes, hidden, activation"),
        (["+optimizer.betass=1"], "did you mean optimizer.betas?"),
        (["logger=board", "+logger.board.max_que=3"], "did you mean logger.board.max_queue?"),
        (["+trainer.callbacks.stopping.patient=1"], "did you mean trainer.callbacks.stopping.patience?"),
        (["+logger.csv.save=1"], "logger.csv.save=1: no such key; did you mean logger.csv.save_dir?"),
        (["model=unset"], "model.hidden=???: has no value yet"),
        (
            ["optimizer.schedule._target_=neurona.schedule.geometric"],
            "optimizer.schedule.first_lr=: is missing: neurona.schedule.geometric needs it",
        ),
        (["+optimizer.params=[1]"], "optimizer.params=[1]: no such key"),
        (["+optimizer.acumulate=2"], "did you mean optimizer.accumulate?"),
        (["+optimizer.groups={head.*:{weight_deca:0}}"], "did you mean optimizer.groups.head.*.weight_decay?"),
        (["+optimizer.groups={head.*:{clip_norm:1}}"], "optimizer.groups.head.*.clip_norm=1: no such key"),
        (["trainer.callbacks.stopping=off"], "trainer.callbacks.stopping=off: needs a _target_"),
        (
            ["+trainer.devices=1.5"],
            "trainer.devices=1.5: must be a list (each entry a whole number) or text",
        ),
        (["limits.exact=3"], "limits.exact=3: must be true or false"),
        (["limits.rows=x"], "limits.rows=x: must be a number"),
        (["limits.columns=x"], "limits.columns=x: must be a list"),
        (["limits=3", "seed=1"], "limits=3: must be a mapping"),
        (["stage=fitt"], "stage=fitt: must be one of fit, refit, validate, test, predict, "),
        (["seed=1.5"], "seed=1.5: must be a whole number"),
        (["threads=0"], "threads=0: must be from 1 to 4096, or null"),
        (["threads=99999999999999999999"], "must be from 1 to 4096, or null"),
        (["trainer.callbacks=null"], "trainer.callbacks=null: must be a mapping"),
        (["trainer.callbacks=abc"], "trainer.callbacks=abc: must be a mapping"),
        (["+model._partial_=true"], "model._partial_=True: has no meaning here"),
        (["+optimizer._args_=[1]"], "optimizer._args_=[1]: has no meaning here"),
        (["+trainer.callbacks.stopping._recursive_=false"], "_recursive_=False: has no meaning here"),
        (["+logger.csv._convert_=all"], "logger.csv._convert_=all: has no meaning here"),
        (["experiment=no_header"], "experiment=no_header: its yaml must begin with the line # @package _global_"),
        (["seed=-1"], "seed=-1: must be from 0 to 4294967295"),
        (["seed=4294967296"], "must be from 0 to 4294967295"),
        (["quiet=1"], "quiet=1: must be true or false"),
        (["tags=a"], "tags=a: must be a list (each entry text)"),
        (["seed=${sed}"], "Interpolation key 'sed' not found"),
        (
            ["model._target_=neurona.models.mlp.MPL"],
            "neurona.models.mlp has no MPL; did you mean neurona.models.mlp.MLP?",
        ),
        (["model._target_=neurona.models.mpl.MLP"], "did you mean neurona.models.mlp?"),
        (["model._target_=neuron.models.mlp.MLP"], "did you mean neurona?"),
        (["model._target_=3"], "must be the dotted path of a class"),
        (["model._target_=os.system"], "if you trust that module, add allow=[os]"),
        (["model._target_=nobodys.Net", "allow=[nobodys]"], "there is no package nobodys"),
        (
            ["model._target_=nobodys.Net"],
            "there is no package nobodys here; install it, or go on in the checkout that has",
        ),
    ],
)
def test_refused(tree: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(tree, *overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.hidden=abc", "must be a list (each entry a whole number) or a whole number"),
        ("model.hidden=[1,b]", "model.hidden=[1, 'b']: must be a list (each entry a whole number)"),
        ("model.hidden=true", "model.hidden=True: must be"),
        ("model.normalization=bach", "must be one of none, batch, layer, rms; did you mean batch?"),
        ("optimizer.lr=abc", "optimizer.lr=abc: must be a number"),
        ("optimizer.lr=null", "optimizer.lr=null: must be a number"),
        ("optimizer.lr=true", "optimizer.lr=True: must be a number"),
        ("optimizer.schedule=null", "optimizer.schedule=null: must be a mapping whose _target_ makes a Schedule"),
        ("+optimizer.clip_norm=a", "optimizer.clip_norm=a: must be a number or null"),
        ("+optimizer.groups=[1]", "optimizer.groups=[1]: must be a mapping or null"),
        ("+optimizer.groups={head.*:{lr:a}}", "optimizer.groups.head.*.lr=a: must be a number"),
        ("trainer.max_epochs=abc", "trainer.max_epochs=abc: must be a whole number or null"),
        ("trainer.max_epochs=1e3", "trainer.max_epochs=1000.0: must be a whole number or null"),
        ("trainer.precision=17", "trainer.precision=17: must be one of 64, 32, 16, transformer-engine"),
        ("trainer.callbacks.stopping.patience=two", "must be a whole number"),
        ("+logger.board.default_hp_metric=x", "logger.board.default_hp_metric=x: must be true or false"),
    ],
)
def test_types_are_refused_at_the_latest_after_the_import(tree: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_imported(check(tree, "logger=board", override))
    assert message in str(caught.value)


@pytest.mark.parametrize("override", ["logger=[]", "~logger", "model=[]", "~seed"])
def test_what_every_run_needs_cannot_be_left_out(tree: Path, override: str) -> None:
    key = override.strip("~=[]")
    with initialize_config_dir(str(tree), version_base="1.3"):
        cfg = compose("train", [override], return_hydra_config=True)
        with open_dict(cfg):
            choices = cfg.pop("hydra").runtime.choices
        with pytest.raises(ConfigError, match=f"{key}=: must be given"):
            check_config(cfg, choices)


def test_a_yaml_cannot_name_the_run_to_go_on_with(tree: Path) -> None:
    with initialize_config_dir(str(tree), version_base="1.3"):
        for overrides, is_allowed in ((["run=elsewhere"], True), (["experiment=with_run"], False)):
            cfg = compose("train", overrides, return_hydra_config=True)
            with open_dict(cfg):
                choices = cfg.pop("hydra").runtime.choices
            if is_allowed:
                check_config(cfg, choices)
                continue
            with pytest.raises(ConfigError, match="run=elsewhere: belongs on the command line"):
                check_config(cfg, choices)


@pytest.mark.usefixtures("my_networks")
def test_a_module_of_the_users_is_read_without_importing_it(tree: Path) -> None:
    allow = ["model=mine", "allow=[my_networks]"]
    check(tree, *allow, "+model.width=3")
    with pytest.raises(ConfigError, match=r"did you mean model\.width\?"):
        check(tree, *allow, "+model.widht=3")
    with pytest.raises(ConfigError, match=r"model\.depth=: is missing"):
        check(tree, *allow, "~model.depth")
    with pytest.raises(ConfigError, match=r"add allow=\[my_networks\]"):
        check(tree, "model=mine")
    with pytest.raises(ConfigError, match=r"did you mean model\.block\.in_features"):
        check(tree, *allow, "+model.block.in_featurs=3")
    focused = ["model._target_=my_networks.Focused", "allow=[my_networks]"]
    check(tree, *focused, "+model.gamma=3", "model.dropout=0.1")
    for key, meant in (("gama", "gamma"), ("dropuot", "dropout")):
        with pytest.raises(ConfigError, match=rf"did you mean model\.{meant}\?"):
            check(tree, *focused, f"+model.{key}=3")
    assert "my_networks" not in sys.modules


def test_what_the_source_does_not_tell_is_checked_after_the_import(tree: Path) -> None:
    unread = check(tree, "model._target_=torch.nn.Linearr")
    with pytest.raises(ConfigError, match=r"torch.nn has no class Linearr; did you mean Linear\?"):
        check_imported(unread)
    check_imported([("a", {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 2}, {})])
    with pytest.raises(ConfigError, match=r"a.out_feature=2: no such key; did you mean a.out_features\?"):
        check_imported([("a", {"_target_": "torch.nn.Linear", "out_feature": 2}, {})])


def test_what_yamls_declare_is_remembered_until_one_is_edited(tmp_path: Path) -> None:
    def declared() -> dict[str, Any]:
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            return from_groups({"model": "mlp"}, "train")

    (tmp_path / "model").mkdir()
    (tmp_path / "train.yaml").write_text("defaults: [{model: mlp}, _self_]\nseed: 0\n")
    yaml = tmp_path / "model" / "mlp.yaml"
    yaml.write_text("width: 1\n")
    first = declared()
    assert declared() is first
    yaml.write_text("width: 1\ndepth: 2\n")
    os.utime(yaml, ns=(1, 1))  # whatever the clock says
    assert declared()["model"] == {"width": 1, "depth": 2}
    (tmp_path / "model" / "other.yaml").write_text("width: 1\n")
    assert declared() is not first


def test_an_activation_that_this_process_has_added_may_be_named(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACTIVATIONS, "mine", ACTIVATIONS["relu"])
    check_imported(check(tree, "model.activation=mine"))
