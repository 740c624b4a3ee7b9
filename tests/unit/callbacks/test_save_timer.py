"""When a checkpoint is due, by a clock that goes when it is told to."""

from __future__ import annotations

import math

import pytest

from neurona.callbacks import save_timer
from neurona.callbacks.save_timer import SaveTimer


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def started(
    clock: Clock, every_n_steps: int | None = None, every_seconds: float = math.inf, step: int = 0
) -> SaveTimer:
    timer = SaveTimer(every_n_steps, every_seconds, clock=clock)
    timer.start(step)
    return timer


def write(timer: SaveTimer, clock: Clock, seconds: float) -> None:
    with timer.saving():
        clock.now += seconds


def test_one_is_due_once_for_each_multiple_of_the_steps(clock: Clock) -> None:
    timer, steps = started(clock, every_n_steps=3, step=6), []
    for step in (6, 7, 8, 9, 9, 9, 10, 11, 12):  # it goes on at 6, and accumulates three mini-batches to step 9
        timer.count(step)
        if timer.is_due:
            steps.append(step)
            write(timer, clock, 0)
    assert steps == [9, 12]


def test_one_that_is_due_stays_so_until_it_is_written(clock: Clock) -> None:
    timer = started(clock, every_n_steps=3)
    timer.count(3)
    timer.count(4)
    assert timer.is_due
    write(timer, clock, 0)
    assert not timer.is_due


def test_one_that_could_not_be_written_is_still_due(clock: Clock) -> None:
    timer = started(clock)
    timer.request()
    with pytest.raises(OSError, match="full"), timer.saving():
        raise OSError("full")
    assert timer.is_due


def test_time_is_counted_from_the_end_of_the_last_one(clock: Clock) -> None:
    timer = started(clock, every_seconds=300)
    clock.now += 299
    assert not timer.is_time()
    write(timer, clock, 40)
    clock.now += 299
    assert not timer.is_time()
    clock.now += 1
    assert timer.is_time()


@pytest.mark.parametrize(("writing", "pause"), [(0.0, 1.0), (0.01, 1.0), (2.0, 200.0)])
def test_epochs_wait_a_second_and_a_hundred_times_what_writing_took(clock: Clock, writing: float, pause: float) -> None:
    timer = started(clock)
    write(timer, clock, writing)
    clock.now += pause - 0.25
    assert not timer.is_time(at_epoch_end=True)
    clock.now += 0.5
    assert timer.is_time(at_epoch_end=True)
    assert not timer.is_time()  # within an epoch there is no such time
    assert (save_timer.PAUSE_SECONDS, save_timer.SHARE_OF_TIME) == (1.0, 0.01)


def test_a_fit_begins_with_nothing_due_and_a_second_to_wait(clock: Clock) -> None:
    timer = started(clock)
    write(timer, clock, 60)
    timer.request(15)
    timer.start(step=0)
    assert (timer.is_due, timer.signal) == (False, 0)
    clock.now += 1
    assert timer.is_time(at_epoch_end=True)


def test_a_signal_stays_until_the_fit_has_ended_with_it(clock: Clock) -> None:
    timer = started(clock)
    timer.request(15)
    assert timer.is_due
    write(timer, clock, 0)
    assert (timer.is_due, timer.signal) == (False, 15)


def test_the_first_epoch_and_the_last_have_one_whatever_the_time(clock: Clock) -> None:
    timer = started(clock)
    assert timer.is_due_at_epoch_end(0, is_over=False)
    assert not timer.is_due_at_epoch_end(1, is_over=False)
    assert timer.is_due_at_epoch_end(1, is_over=True)
    timer.request()
    assert timer.is_due_at_epoch_end(1, is_over=False)
