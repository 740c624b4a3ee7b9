"""``stage=lr_find``: one run for all tests, held against a plain loop of torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import neurona
from neurona.config.hints import CONFIG_DIR
from neurona.errors import RunError
from neurona.stages import assembly

SETTINGS = [
    *("data=iris", "data.batch_size=16", "optimizer=sgd", "optimizer.momentum=0.9", "optimizer/schedule=cosine"),
    *("optimizer.accumulate=2", "optimizer.clip_norm=0.5", "classifier.class_weights=balanced"),
    *("classifier.label_smoothing=0.1", "seed=3"),
]
TEST = ["stage=lr_find", "lr_find.steps=60", "lr_find.lowest=1e-4", *SETTINGS]


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tested") / "run"
    before = torch.get_rng_state()
    neurona.run([*TEST, "quiet=true", f"folder={folder}"])
    assert torch.equal(torch.get_rng_state(), before), "the generators are as they were"
    return folder


def curve(folder: Path) -> np.ndarray:
    return np.loadtxt(folder / "lr_find.csv", delimiter=",", skiprows=1)


def test_its_losses_are_those_of_a_plain_loop(tested: Path) -> None:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        classifier, data = assembly.untrained(compose("train", SETTINGS))
    x, y, loader = data.features, data.targets, data.train_dataloader()
    of_class = y[data.train_rows].bincount()
    criterion = torch.nn.CrossEntropyLoss(len(data.train_rows) / (3 * of_class), label_smoothing=0.1)
    optimizer = torch.optim.SGD(classifier.network.parameters(), momentum=0.9)
    losses: list[float] = []
    epoch = 0
    rates = np.geomspace(1e-4, 10, 60)
    expected = curve(tested)
    while len(losses) < len(expected):
        mini_batches = loader.order(epoch).split(16)
        for first in range(0, len(mini_batches), 2):
            group = mini_batches[first : first + 2]
            optimizer.param_groups[0]["lr"] = rates[len(losses)]
            each = [criterion(classifier(x[rows]), y[rows]) for rows in group]
            optimizer.zero_grad()
            (sum(each) / 2).backward()  # as Lightning has it, also where an epoch ends with one
            torch.nn.utils.clip_grad_norm_(classifier.network.parameters(), 0.5)
            optimizer.step()
            losses.append(sum(a.item() * len(b) for a, b in zip(each, group, strict=True)) / sum(map(len, group)))
            if len(losses) == len(expected):
                break
        epoch += 1
    assert epoch > 5, "more steps than an epoch has"
    np.testing.assert_allclose(expected[:, 0], rates[: len(expected)])
    np.testing.assert_allclose(expected[:, 1], losses, rtol=1e-3)


def test_the_folder_explains_itself(tested: Path, read_run: Any) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, rates = read_run(tested), curve(tested)[:, 0]
    figures = run.read("metrics_lr_find.json")
    assert (figures["status"], figures["stage"], figures["steps"]) == ("finished", "lr_find", len(rates))
    assert (figures["lowest_lr"], figures["highest_lr"]) == (rates[0], rates[-1])
    assert np.isclose(rates, figures["suggested_lr"], rtol=0.05).any()
    assert figures["seconds"] > 0
    stored = OmegaConf.load(tested / "config.yaml")
    assert stored.optimizer.schedule._target_ == "neurona.schedule.cosine", "the fit's own schedule"
    assert OmegaConf.load(tested / "overrides.yaml").overrides[: len(TEST)] == TEST
    assert run.read("provenance.json")["seed"] == 3
    assert (tested / "lr_find.png").read_bytes().startswith(b"\x89PNG")
    events = EventAccumulator(str(tested))
    events.Reload()
    assert events.Tags()["images"] == ["lr_find"]
    assert not (tested / "metrics.json").exists()
    assert not (tested / "checkpoints").exists()


def test_it_prints_the_override_and_repeats(tested: Path, read_run: Any, train: Any) -> None:
    done = train(*TEST, "folder=again")
    assert (done.status, done.err) == (0, "")
    assert (Path("again") / "lr_find.csv").read_bytes() == (tested / "lr_find.csv").read_bytes()
    suggested = read_run(tested).read("metrics_lr_find.json")["suggested_lr"]
    assert done.out.splitlines()[-1] == f"optimizer.lr={suggested:.1e}"
    assert f"optimizer.lr={suggested:.1e}" in (Path("again") / "train.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run={tested}"], "run={tested}: is a learning-rate range test"),
        (["run={tested}", "stage=test"], "run={tested}: is a learning-rate range test"),
        (["init_from={tested}"], "init_from={tested}: is a learning-rate range test"),
        (["stage=lr_find", "-m", "seed=0,1"], "stage=lr_find: cannot be used in a sweep"),
        (["stage=lr_find", "trainer=ddp_cpu", "trainer.devices=2"], "trainer.devices=2: lr_find works on one device"),
        (["stage=lr_find", "+trainer.gradient_clip_val=1"], "optimizer.clip_norm"),
        (["stage=lr_find", "lr_find.stesp=50"], "did you mean lr_find.steps?"),
    ],
)
def test_mistakes(tested: Path, train: Any, arguments: list[str], message: str) -> None:
    done = train(*(argument.format(tested=tested) for argument in arguments))
    assert done.status == 2
    assert message.format(tested=tested) in done.err
    assert list(Path().iterdir()) == []


def test_it_is_not_of_an_earlier_run(train: Any) -> None:
    Path("earlier").mkdir()
    Path("earlier", "overrides.yaml").write_text("overrides: []\nabsolute: {}\n")
    Path("earlier", "config.yaml").write_text("data: {}\n")
    done = train("stage=lr_find", "run=earlier")
    assert (done.status, done.err.partition(":")[0]) == (2, "run=earlier")
    assert "init_from=" in done.err


def test_without_a_suggestion_it_fails_and_leaves_its_curve(read_run: Any) -> None:
    with pytest.raises(RunError, match=r"does not clearly fall in 60 steps .* higher lr_find\.highest"):
        neurona.run([*TEST, "lr_find.highest=2e-4", "folder=flat", "quiet=true"])
    assert len(curve(Path("flat"))) == 60
    figures = read_run("flat").read("metrics_lr_find.json")
    assert (figures["status"], figures["suggested_lr"]) == ("failed", None)


def test_a_report_passes_over_it(tested: Path) -> None:
    from neurona.report import runs

    fit = tested.parent / "fit"
    fit.mkdir()
    (fit / "overrides.yaml").write_text("overrides: []")
    assert runs.find([tested.parent]) == [fit]
