from __future__ import annotations

import pytest
import torch

from neurona.data.split import Split, split
from neurona.errors import ConfigError

NAMES = ("a", "b", "c")
COUNTS = (50, 33, 17)


def targets() -> torch.Tensor:
    """100 rows: 50 of class 0, 33 of class 1, 17 of class 2, in a mixed order."""
    classes = torch.repeat_interleave(torch.arange(3), torch.tensor(COUNTS))
    return classes[torch.randperm(100, generator=torch.Generator().manual_seed(5))]


def parts(labels: torch.Tensor, **changes: object) -> Split:
    settings = {"num_test": 0, "val_fraction": 0.1, "test_fraction": 0.25, "folds": None, "fold": None, "seed": 0}
    return split(labels, NAMES, **(settings | changes))  # type: ignore[arg-type]


def class_counts(labels: torch.Tensor, rows: torch.Tensor) -> list[int]:
    return [int((labels[rows] == c).sum()) for c in range(3)]


def assert_partition(part: Split, num_rows: int) -> None:
    everything = torch.cat((part.train, part.val, part.test))
    assert sorted(everything.tolist()) == list(range(num_rows))
    for rows in (part.train, part.val, part.test):
        assert rows.tolist() == sorted(rows.tolist())
        assert rows.dtype == torch.int64


def test_counts_are_those_computed_by_hand() -> None:
    labels = targets()
    part = parts(labels)
    # test: 25 of (50, 33, 17) = 12.5, 8.25, 4.25: floors 12 + 8 + 4, the one left to the largest remainder, class 0.
    assert class_counts(labels, part.test) == [13, 8, 4]
    # val: 10 of the (37, 25, 13) left = 4.93, 3.33, 1.73: floors 4 + 3 + 1, two left to classes 0 and 2.
    assert class_counts(labels, part.val) == [5, 3, 2]
    assert class_counts(labels, part.train) == [32, 22, 11]
    assert_partition(part, 100)


def grouped(part: Split, groups: torch.Tensor) -> list[set[int]]:
    return [set(groups[rows].tolist()) for rows in (part.train, part.val, part.test)]


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole(seed: int) -> None:
    labels, sizes = targets(), torch.tensor([1, 2, 3, 4] * 10)
    groups = torch.arange(40).repeat_interleave(sizes)[torch.randperm(100)]
    part = parts(labels, groups=groups, seed=seed)
    assert_partition(part, 100)
    train, val, test = grouped(part, groups)
    assert not train & val
    assert not (train | val) & test
    assert (len(part.test), len(part.val)) == pytest.approx((25, 10), abs=2)  # half of the largest group
    assert parts(labels, groups=groups, seed=seed + 9).test.tolist() != part.test.tolist()
    folds = [parts(labels, groups=groups, seed=seed, folds=4, fold=fold) for fold in range(4)]
    assert sorted(torch.cat([fold.val for fold in folds]).tolist()) == sorted(
        [*part.train.tolist(), *part.val.tolist()]
    )
    for fold in folds:
        assert not set.intersection(*grouped(fold, groups)[:2])
        assert abs(len(fold.val) - 75 / 4) <= 4


def test_the_last_rows_in_order_test_and_those_before_validate() -> None:
    labels, order = targets(), torch.randperm(100).double()
    part = parts(labels, order=order)
    assert_partition(part, 100)
    assert sorted(order[part.test].tolist()) == list(range(75, 100))
    assert sorted(order[part.val].tolist()) == list(range(65, 75))


def test_published_parts_stay_whole() -> None:
    part = parts(targets(), num_test=20, num_val=30)
    assert_partition(part, 100)
    assert (part.val.tolist(), part.test.tolist()) == (list(range(50, 80)), list(range(80, 100)))
    part = parts(targets(), num_val=30, order=torch.arange(70).double(), test_fraction=0.1)
    assert (part.val.tolist(), part.test.tolist()) == (list(range(70, 100)), list(range(63, 70)))


def test_a_group_cannot_be_in_two_folds() -> None:
    with pytest.raises(ConfigError, match=r"^data\.folds=10: leaves none of the 100 rows for fold 0"):
        parts(targets(), groups=torch.arange(100) // 25, folds=10, fold=0)


def test_sizes_are_exact_for_any_fraction() -> None:
    labels = targets()
    for hundredths in range(1, 90):
        part = parts(labels, val_fraction=0.03, test_fraction=hundredths / 100)
        assert (len(part.test), len(part.val)) == (hundredths, 3)
        for c, count in enumerate(class_counts(labels, part.test)):
            assert abs(count - COUNTS[c] * hundredths / 100) < 1


def test_depends_on_its_seed_alone() -> None:
    labels = targets()
    torch.manual_seed(1)
    first, state = parts(labels), torch.get_rng_state()
    torch.manual_seed(2)
    second = parts(labels)
    assert all(map(torch.equal, vars(first).values(), vars(second).values()))
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(first.test, parts(labels, seed=1).test)


def test_validation_does_not_change_the_test_part() -> None:
    labels = targets()
    reference = parts(labels).test
    for changes in ({"val_fraction": 0.0}, {"val_fraction": 0.5}, {"folds": 5, "fold": 3}):
        assert torch.equal(parts(labels, **changes).test, reference)


def test_a_published_test_part_stays() -> None:
    labels = torch.cat((targets(), torch.tensor([2, 1, 0, 0])))
    part = parts(labels, num_test=4, test_fraction=0.0)
    assert part.test.tolist() == [100, 101, 102, 103]
    assert class_counts(labels, part.val) == [5, 3, 2]
    assert_partition(part, 104)


def test_no_validation() -> None:
    part = parts(targets(), val_fraction=0.0)
    assert len(part.val) == 0
    assert_partition(part, 100)


@pytest.mark.parametrize("num_test", [0, 4])
@pytest.mark.parametrize("folds", [2, 5, 7])
def test_folds_are_disjoint_stratified_and_cover_all_but_the_test_part(folds: int, num_test: int) -> None:
    labels = targets()
    each = [parts(labels, num_test=num_test, folds=folds, fold=k) for k in range(folds)]
    for part in each:
        assert_partition(part, 100)
        assert torch.equal(part.test, each[0].test)
    together = torch.cat([part.val for part in each])
    assert sorted(together.tolist()) == sorted(set(range(100)) - set(each[0].test.tolist()))
    sizes = [len(part.val) for part in each]
    assert max(sizes) - min(sizes) <= 1
    for counts in zip(*(class_counts(labels, part.val) for part in each), strict=True):
        assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize(
    ("labels", "changes", "key"),
    [
        ([0, 1, 2] * 10, {"test_fraction": 0.01}, "data.test_fraction"),
        ([0, 1, 2] * 10, {"val_fraction": 0.01}, "data.val_fraction"),
        ([0, 1, 2] * 2, {"val_fraction": 0.499, "test_fraction": 0.5}, "data.test_fraction"),
        ([0] * 10 + [1] * 10 + [2] * 2, {"val_fraction": 0.0, "test_fraction": 0.9}, "data.test_fraction"),
        ([0] * 10 + [1] * 10 + [2] * 2, {"val_fraction": 0.9, "test_fraction": 0.05}, "data.val_fraction"),
        ([0, 1, 2] * 10, {"folds": 25, "fold": 0}, "data.folds"),
        ([0] * 9 + [1] * 9 + [2], {"folds": 2, "fold": 0, "test_fraction": 0.1}, "data.folds"),
    ],
)
def test_a_part_that_would_lack_something_is_refused(labels: list[int], changes: dict[str, object], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parts(torch.tensor(labels), **changes)
    assert caught.value.key == key


def test_all_rows_train_where_no_part_is_asked_for() -> None:
    for labels in ([0, 1, 2] * 10, [0, 0, 1, 1]):  # without rows of class 2 too, of which the data alone know
        part = parts(torch.tensor(labels), test_fraction=0.0, val_fraction=0.0)
        assert part.train.tolist() == list(range(len(labels)))
        assert (len(part.val), len(part.test)) == (0, 0)
    part = parts(torch.tensor([0, 1, 2] * 10), test_fraction=0.0, val_fraction=0.2)
    assert (len(part.train), len(part.val), len(part.test)) == (24, 6, 0)


def test_messages_state_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"data.val_fraction=0.01: leaves none of the 30 rows .* 0 for no validation"):
        parts(torch.tensor([0, 1, 2] * 10), val_fraction=0.01)
    with pytest.raises(ConfigError, match="no training row of class 'c'; use a smaller one"):
        parts(torch.tensor([0] * 10 + [1] * 10 + [2] * 2), test_fraction=0.89, val_fraction=0.0)
