"""The loader's order is a pure function of (seed, epoch), and every row is rows_of once."""

from __future__ import annotations

import torch

from neurona.data.batches import Batch, BatchLoader, Chunk

FEATURES = torch.arange(40.0).reshape(20, 2)
TARGETS = torch.arange(20)
ROWS = torch.tensor([1, 3, 4, 7, 8, 9, 15])


def rows_of(loader: BatchLoader) -> list[int]:
    return [target for batch in loader for target in batch.targets.tolist()]


def test_sequential_batches_hold_the_given_rows_in_order_and_keep_the_last_partial_one():
    loader = BatchLoader(FEATURES, TARGETS, ROWS, 3)
    batches = list(loader)
    assert [batch.targets.tolist() for batch in batches] == [[1, 3, 4], [7, 8, 9], [15]]
    torch.testing.assert_close(batches[1].features, FEATURES[[7, 8, 9]])
    assert len(loader) == 3


def test_shuffled_epochs_differ_and_each_takes_every_row_once():
    loader = BatchLoader(FEATURES, TARGETS, ROWS, 3, shuffle_seed=5)
    first, second = rows_of(loader), rows_of(loader)
    assert first != second
    assert sorted(first) == sorted(second) == ROWS.tolist()


def test_the_order_depends_on_seed_and_epoch_alone():
    torch.manual_seed(0)
    one = BatchLoader(FEATURES, TARGETS, ROWS, 3, shuffle_seed=5).order(4)
    torch.manual_seed(99)
    torch.rand(10)
    other = BatchLoader(FEATURES, TARGETS, ROWS, 2, shuffle_seed=5)
    list(other)
    torch.testing.assert_close(other.order(4), one, rtol=0, atol=0)
    assert other.order(3).tolist() != one.tolist()
    assert BatchLoader(FEATURES, TARGETS, ROWS, 3, shuffle_seed=6).order(4).tolist() != one.tolist()


def test_a_chunks_mini_batches_are_copies_of_their_own_not_views():
    chunk = Chunk(FEATURES, TARGETS, ROWS, 3)
    assert len(chunk) == 3
    starts = {batch.features.data_ptr() for batch in list(chunk)}
    assert len(starts) == 3
    assert all(isinstance(batch, Batch) and batch.features.storage_offset() == 0 for batch in chunk)


def test_bytes_stay_bytes():
    images = torch.randint(0, 256, (20, 4), dtype=torch.uint8)
    assert next(iter(BatchLoader(images, TARGETS, ROWS, 3))).features.dtype == torch.uint8
