"""What the project relies on inside of Lightning and torch; a failure names what has gone or means something else."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import Strategy
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from neurona.devices import distributed, lightning_internals

pytestmark = pytest.mark.filterwarnings(
    "ignore:The '.*_dataloader' does not have many workers", "ignore:.*log_every_n_steps"
)
BATCHES = 10


class Module(LightningModule):
    """One weight and manual optimisation, of which Lightning knows nothing but what ``step`` does in a batch."""

    def __init__(self, step: Callable[[Module], None]) -> None:
        super().__init__()
        self.weight, self.step = torch.nn.Parameter(torch.zeros(1)), step
        self.automatic_optimization = False

    def training_step(self, batch: Tensor) -> None:
        self.step(self)

    def validation_step(self, batch: Tensor) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def one_step(module: Module) -> None:
    module.optimizers().step()  # type: ignore[union-attr]


class Events(Callback):
    """What a Trainer says at the end of every batch, and after how many batches it validates."""

    def __init__(self, look: Callable[[Trainer], Any] = lambda trainer: None) -> None:
        self.look = look
        self.seen: list[Any] = []
        self.validated: list[int] = []

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.seen.append(self.look(trainer))

    def on_validation_start(self, trainer: Trainer, *_: Any) -> None:
        self.validated.append(len(self.seen))


@pytest.fixture
def fit(make_trainer: Callable[..., Trainer]) -> Callable[..., Trainer]:
    """Fits with 10 batches an epoch. prepare: what is done to the Trainer before."""

    def run(
        events: Events,
        step: Callable[[Module], None] = one_step,
        *,
        prepare: Callable[[Trainer], Any] = lambda trainer: None,
        ckpt_path: Path | None = None,
        **arguments: Any,
    ) -> Trainer:
        trainer = make_trainer(events, **{"limit_val_batches": 1, **arguments})
        prepare(trainer)
        loader = DataLoader(torch.zeros(BATCHES, 1))  # type: ignore[arg-type]
        trainer.fit(Module(step), loader, loader, ckpt_path=ckpt_path, weights_only=ckpt_path and True)
        return trainer

    return run


@pytest.fixture
def one_process() -> Iterator[None]:
    """A group of processes that this one alone makes."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    "arguments",
    [
        {"val_check_interval": 3, "max_epochs": 2},
        {"val_check_interval": 0.5},
        {"val_check_interval": 7, "check_val_every_n_epoch": None, "max_epochs": 3},
        {"check_val_every_n_epoch": 2, "max_epochs": 4},
        {"limit_val_batches": 0},
    ],
    ids=str,
)
def test_should_check_val_fx_says_where_a_validation_follows(fit: Any, arguments: dict[str, Any]) -> None:
    events = Events(lightning_internals.validation_follows)
    fit(events, **arguments)
    batches = [batch for batch, follows in enumerate(events.seen, start=1) if follows]
    assert batches == events.validated, "Lightning's _TrainingEpochLoop._should_check_val_fx"


@pytest.mark.parametrize(("across", "counted"), [(None, [*range(1, 13)]), (1, [*range(1, 11), 1, 2])])
def test_batch_progress_counts_the_batches_taken(fit: Any, across: int | None, counted: list[int]) -> None:
    events = Events(
        lambda trainer: (
            lightning_internals.position(trainer),
            lightning_internals.position_among_validations(trainer),
        )
    )
    fit(events, max_steps=12, max_epochs=2, check_val_every_n_epoch=across, val_check_interval=10)
    name = "Lightning's _TrainingEpochLoop.batch_progress"
    assert [position for position, _ in events.seen] == [*range(1, 11), 1, 2], name
    assert [position for _, position in events.seen] == counted, name


def test_done_tells_the_last_batch_of_an_epoch(fit: Any) -> None:
    events = Events(lightning_internals.ends_epoch)
    fit(events, max_steps=12, max_epochs=2)
    ends = [batch for batch, ends in enumerate(events.seen, start=1) if ends]
    assert ends == [10, 12], "Lightning's _TrainingEpochLoop.done"


def test_counters_can_be_advanced(fit: Any) -> None:
    """Each batch is five, of which Lightning has seen one step of five; two make an epoch."""

    def five(module: Module) -> None:
        one_step(module)
        for _ in range(4):
            lightning_internals.count_step(module.trainer)
        lightning_internals.advance(module.trainer, 5)

    def look(trainer: Trainer) -> tuple[int, ...]:
        loop: Any = trainer.fit_loop
        return (
            trainer.global_step,
            loop.batch_idx + 1,
            loop.total_batch_idx + 1,
            loop.epoch_loop._batches_that_stepped,
        )

    events = Events(look)
    trainer = fit(events, five, limit_train_batches=10, max_epochs=2, limit_val_batches=0)
    name = "Lightning's optim_step_progress, batch_progress or _batches_that_stepped"
    assert [seen[0] for seen in events.seen[:2]] == [5, 10], name
    assert [seen[1:3] for seen in events.seen[:2]] == [(5, 5), (10, 10)], name
    assert [seen[3] for seen in events.seen[:2]] == [4, 9], name
    assert trainer.global_step == 20, name


class Epochs(Events):
    """Notes which epochs end, and keeps a checkpoint of each end."""

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        self.seen.append(trainer.current_epoch)
        trainer.save_checkpoint(Path(trainer.default_root_dir, f"{len(self.seen)}.ckpt"), weights_only=False)

    def on_train_batch_end(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(("is_ours", "ended"), [(False, [0, 1, 2]), (True, [1, 2])], ids=["Lightning's", "ours"])
def test_an_epoch_is_ended_once_after_a_checkpoint_from_its_end(
    fit: Any, tmp_path: Path, is_ours: bool, ended: list[int]
) -> None:
    fit(Epochs(), max_steps=10)
    events = Epochs()
    end_once = lightning_internals.end_epochs_once if is_ours else lambda trainer: None
    fit(events, ckpt_path=tmp_path / "1.ckpt", prepare=end_once, max_steps=30, max_epochs=-1)
    assert events.seen == ended, "Lightning's _FitLoop._iteration_based_training"


@pytest.mark.parametrize("is_ours", [False, True], ids=["Lightning's", "ours"])
def test_there_are_no_handlers_and_nothing_is_broadcast_for_them(
    fit: Any, monkeypatch: pytest.MonkeyPatch, one_process: None, is_ours: bool
) -> None:
    """Before every batch of several processes; here is one that is batches there are two."""
    events, broadcasts = Events(lambda trainer: signal.getsignal(signal.SIGTERM)), []
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Trainer, "world_size", 2)
    monkeypatch.setattr(torch.distributed, "broadcast", lambda *_, **__: broadcasts.append(1))
    fit(events, prepare=lightning_internals.without_signal_handlers if is_ours else lambda trainer: None)
    name = "Lightning's _TrainingEpochLoop._broadcast_sigterm_tensor"
    assert len(broadcasts) == (0 if is_ours else BATCHES), name
    assert (set(events.seen) == {before}) == is_ours, "Lightning's _SignalConnector.register_signal_handlers"


def test_lightning_starts_no_process(make_trainer: Any) -> None:
    strategy = make_trainer(strategy=distributed.DataParallel(), devices=2).strategy
    assert strategy.launcher is None, "Lightning's Strategy.launcher"
    assert isinstance(Strategy.launcher, property), "Lightning's Strategy.launcher"


def test_the_wait_for_others_is_that_of_the_settings_once_all_have_started(
    make_trainer: Any, one_process: None
) -> None:
    strategy = make_trainer(strategy=distributed.DataParallel(timeout_seconds=7)).strategy
    strategy.setup_environment()
    group = torch.distributed.group.WORLD
    assert group is not None
    assert group._get_backend(torch.device("cpu")).options._timeout == timedelta(seconds=7), "ProcessGroup.set_timeout"


class Rows(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(torch.zeros(BATCHES, 1))


@pytest.mark.parametrize("limit", [BATCHES - 3, BATCHES, BATCHES + 3])
def test_a_stream_tells_its_last_batch_whatever_the_limit(make_trainer: Callable[..., Trainer], limit: int) -> None:
    """combined_loader.limits, data_fetcher.length, val_check_batch."""
    events = Events(lightning_internals.is_last_batch)
    starts = Callback()
    starts.on_train_start = lambda trainer, *_: lightning_internals.look_ahead(trainer)  # type: ignore[method-assign]
    trainer = make_trainer(starts, events, max_epochs=2, limit_train_batches=limit, limit_val_batches=1)
    trainer.fit(Module(one_step), DataLoader(Rows(), batch_size=1), DataLoader(torch.zeros(1, 1)))
    length = min(limit, BATCHES)
    is_told = limit > BATCHES - 1  # the batch at the limit is known by its number
    assert events.seen == ([False] * (length - 1) + [is_told]) * 2
    assert events.validated == [length, 2 * length]


class Ordered(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        yield from torch.arange(BATCHES)


@pytest.mark.parametrize("loader", [DataLoader(torch.arange(BATCHES)), DataLoader(Ordered())], ids=["sized", "stream"])
def test_an_epoch_begun_again_passes_over_what_was_taken(loader: Any, make_trainer: Callable[..., Trainer]) -> None:
    taken: list[int] = []

    class Begins(Callback):
        def on_train_start(self, trainer: Trainer, *_: Any) -> None:
            lightning_internals.begin_epoch_again(trainer, 3)

        def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Tensor, batch_idx: int) -> None:
            taken.append(int(batch))

    make_trainer(Begins(), max_epochs=1, limit_val_batches=0).fit(Module(one_step), loader, DataLoader(torch.arange(1)))
    assert taken == list(range(3, BATCHES))


def test_what_is_logged_is_weighted_as_it_is_told(make_trainer: Callable[..., Trainer]) -> None:
    """_results.batch_size."""

    def log(module: Module) -> None:
        for value, rows in ((1.0, 3), (5.0, 1)):
            lightning_internals.begin_mini_batch(module.trainer, rows)
            module.log("value", torch.tensor(value), on_epoch=True)

    trainer = make_trainer()
    trainer.fit(Module(log), DataLoader(torch.zeros(1, 1)), DataLoader(torch.zeros(1, 1)))
    assert trainer.callback_metrics["value"].item() == 2.0


@pytest.mark.parametrize("automatic", [True, False])
def test_steps_are_counted_on_from_either_way(automatic: bool, make_trainer: Any) -> None:
    trainer = make_trainer(max_epochs=1)
    loops = {"fit_loop": trainer.fit_loop.state_dict()}
    manual = loops["fit_loop"]["epoch_loop.manual_optimization.optim_step_progress"]["total"]
    of_automatic = loops["fit_loop"]["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]
    (manual if automatic else of_automatic).update(ready=7, completed=7)
    lightning_internals.count_steps_of_either_way(loops, automatic=automatic)
    trainer.fit_loop.load_state_dict(loops["fit_loop"])
    module = LightningModule()
    module.automatic_optimization = automatic
    trainer.strategy.connect(module)
    assert trainer.global_step == 7


def test_the_state_to_save_is_what_a_checkpoint_holds(fit: Any, tmp_path: Path) -> None:
    trainer = fit(Events(), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "one.ckpt", weights_only=False)
    saved = torch.load(tmp_path / "one.ckpt", weights_only=False)
    assert lightning_internals.state_to_save(trainer).keys() == saved.keys(), "_CheckpointConnector.dump_checkpoint"


def test_the_averages_are_those_of_the_callbacks(make_trainer: Callable[..., Trainer]) -> None:
    events = Events(lambda trainer: [*map(type, lightning_internals.averages(trainer))])
    trainer = make_trainer(WeightAveraging(), events)
    trainer.fit(Module(one_step), DataLoader(torch.zeros(1, 1)), DataLoader(torch.zeros(1, 1)))
    assert events.seen == [[Module]], "Lightning's WeightAveraging._average_model"
    assert lightning_internals.averages(trainer)[0] is not trainer.lightning_module


def test_lightning_tells_whether_a_fit_goes_on_from_the_end_of_an_epoch(make_trainer: Callable[..., Trainer]) -> None:
    loop = make_trainer().fit_loop
    assert not loop.restarted_on_epoch_end, "restarted_on_epoch_end"
    assert not loop.resumed_on_epoch_end, "resumed_on_epoch_end"
    assert loop.epoch_loop.scheduler_progress.total.ready == 0, "epoch_loop.scheduler_progress"
