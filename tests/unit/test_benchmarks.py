from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import busy
import contenders
import harness
import scaling
import startup
import tables
import throughput
from callbacks import ExitAtFirstStep
from clock import Clock
from networks import NETWORKS, Network
from synthetic import write_training_rows

LESSON = Network(100, (8,), 32, 300, "float32", epochs=2)
IMAGES = Network(36, (8, 4), 16, 200, "uint8", epochs=2)


def answers(*microseconds: float, steps: int = 10) -> list[dict[str, float]]:
    return [
        {
            "steps": steps,
            "seconds": value * steps / 1e6,
            "step_seconds": value * steps / 2e6,
            "cpu_seconds": value * steps / 1e6,
            "threads": 1,
            "loss": 0.5,
        }
        for value in microseconds
    ]


def test_ratios_are_taken_round_by_round() -> None:
    # The machine is three times slower in the last round: the ratio of the medians would be 1.5.
    assert harness.ratios([100, 150, 600], [100, 100, 300]) == (1.5, 1.0, 2.0)
    assert str(harness.ratios([1, 3], [2, 2])) == "1.00 (0.50–1.50)"


def test_the_table_compares_with_the_faster_of_the_plain_loops() -> None:
    network = NETWORKS["lesson"]
    timed = {"loop": answers(800, 900), "loop-1-thread": answers(400, 500), "neurona": answers(600, 1000)}
    assert throughput.baseline(timed) == "loop-1-thread"
    name, whole, steps, cpu, ratio, *_ = throughput.rows(timed, network)[2]
    assert (name, whole, steps, cpu, ratio) == ("neurona", "800", "400", "800", "1.75 (1.50–2.00)")


def test_without_a_loop_there_is_no_ratio() -> None:
    assert throughput.rows({"neurona": answers(600)}, NETWORKS["lesson"])[0][4] == ""


def test_sizes_of_a_network() -> None:
    lesson = NETWORKS["lesson"]
    assert lesson.num_parameters == 101 * 64 + 65 * 64 + 65 * 10
    assert lesson.flops_per_step == 6 * lesson.num_parameters * 32
    assert lesson.steps_per_epoch == 219  # 7,000 rows: 218 whole mini-batches and one of 24


def test_clock_counts_steps_without_the_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 13.0, 20.0, 24.0, 25.0])
    cpu = iter([1.0, 8.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    monkeypatch.setattr("time.process_time", lambda: next(cpu))
    clock = Clock()
    clock.pause()  # the untimed epoch
    clock.resume()
    clock.start()
    clock.pause()
    clock.resume()
    clock.stop()
    assert (clock.step_seconds, clock.seconds, clock.cpu_seconds) == (3 + 4, 15, 7)


def test_time_per_step_leaves_out_warm_up_and_ends_of_epochs() -> None:
    notes = [[0, 10, 0.0, 0.0], [0, 20, 100.0, 100.0], [0, 30, 101.0, 101.0], [1, 40, 200.0, 200.0]]
    notes += [[1, 50, 203.0, 202.0]]
    wall, cpu = scaling.microseconds_per_step(notes)
    assert wall == pytest.approx(1e6 * (0.1 + 0.3) / 2)
    assert cpu == pytest.approx(1e6 * 3 / 20)


@pytest.mark.parametrize("network", [LESSON, IMAGES])
def test_the_others_are_handed_the_training_rows_of_neurona(network: Network, tmp_path: Path) -> None:
    write_training_rows(network, tmp_path)
    features, targets = contenders.rows(contenders.Job(network, tmp_path))
    assert features.dtype == np.float32
    assert features.shape == (network.num_samples * 7 // 10, network.num_features)
    assert np.bincount(targets).tolist() == [network.num_samples * 7 // 100] * 10
    if network.scaling == "standard":
        np.testing.assert_allclose(features.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(features.std(0), 1, atol=1e-5)
    else:
        assert 0 <= features.min() < features.max() <= 1


@pytest.mark.filterwarnings("ignore:The number of training batches")  # of the usual Lightning pattern
@pytest.mark.parametrize("network", [LESSON, IMAGES])
@pytest.mark.parametrize("name", ["loop", "neurona", "lightning", "sklearn"])
def test_contenders_do_the_same_work(
    name: str, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    write_training_rows(network, tmp_path)
    clock = Clock()
    repeat = contenders.CONTENDERS[name].make(contenders.Job(network, tmp_path, threads=1))
    outcome = repeat(2, clock)
    assert outcome.steps == 2 * math.ceil(network.num_samples * 7 // 10 / network.batch_size)
    assert 0 < outcome.loss < 3
    assert 0 < clock.step_seconds <= clock.seconds
    assert clock.cpu_seconds > 0


def test_a_contender_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "find_spec", lambda name: None)
    assert "keras" in str(throughput.obstacle("keras", "cpu"))
    assert throughput.obstacle("loop", "cpu") is None


def test_a_contender_that_does_not_know_the_device_is_left_out() -> None:
    assert throughput.obstacle("sklearn", "cuda") == "it does not run on cuda"
    assert throughput.obstacle("loop", "cuda") is None
    assert throughput.obstacle("neurona-compile-tf32", "cpu") == "it does not run on cpu"


def test_on_a_gpu_the_rate_is_also_a_share_of_the_peak_in_that_precision() -> None:
    network = NETWORKS["wide"]
    timed = {"neurona": answers(1000), "neurona-bf16": answers(1000)}
    products = 6 * 2048 * 2048 + 4 * 784 * 2048 + 6 * 2048 * 10  # the gradient of the features is not needed
    tera = products * 28_000 / 28 / 500e-6 / 1e12  # 28 steps an epoch; the steps alone take half of the time
    shares = [line[7] for line in throughput.rows(timed, network, {"float32": 2 * tera, "bfloat16": 10 * tera})]
    assert [share.split("(")[1] for share in shares] == ["50.0 %)", "10.0 %)"]


def test_startup_expects_the_status_of_its_callback() -> None:
    assert startup.FIRST_STEP == ExitAtFirstStep.STATUS


def test_tables_are_compared_by_means_over_seeds() -> None:
    found = {
        "a": {"x": [tables.Result(80, 0.5, 1), tables.Result(90, 0.7, 3)], "y": [tables.Result(70, 1, 1)] * 2},
        "b": {"x": [tables.Result(95, 0.1, 1)] * 2, "y": [tables.Result(99, 0.2, 1)] * 2},
    }
    lines = tables.compare(found).splitlines()
    assert lines[0] == "| accuracy, % · log-loss · s | x | y |"
    assert lines[2] == "| a | 85.00 ± 5.00 · 0.600 · 2.0 | 70.00 ± 0.00 · 1.000 · 1.0 |"
    assert lines[4] == "| mean | 90.00 · 0.350 · 1.5 | 84.50 · 0.600 · 1.0 |"
    lines = tables.differences(found).splitlines()
    assert lines[2] == "| a | +15.00 ± 5.00 · -0.400 (2) |"
    assert lines[4] == "| mean | +5.50 ± 2.50 · -0.250 (2 tables) |"


def test_a_table_of_keels_gets_a_header(tmp_path: Path) -> None:
    (tmp_path / "iris.dat").write_text("5.1, 3.5, A1, setosa\n4.9, 3.0, A2, versicolor\n")
    settings = tables.from_keel(tmp_path, "iris", tmp_path)
    assert settings == {"path": str(tmp_path / "iris.csv"), "target": "class"}
    assert (tmp_path / "iris.csv").read_text() == "x0,x1,x2,class\n5.1,3.5,A1,setosa\n4.9,3.0,A2,versicolor\n"


def test_the_peers_of_tables_learn(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    kinds, numbers = ("red", "green", "blue"), np.random.default_rng(0).normal(size=300)
    rows = [f"{number},{kinds[i % 3]},{int(number > i % 3 - 1)}" for i, number in enumerate(numbers)]
    path.write_text("\n".join(["number,kind,y", *rows]))
    found = dict(tables.peers({"path": str(path), "target": "y"}, seed=0))
    assert list(found) == list(tables.PEERS)
    assert all(result.accuracy > 85 and result.loss < 0.5 for result in found.values())


def test_on_busy_cores_the_better_number_of_threads_is_that_of_the_round() -> None:
    timed = {"default": [300.0, 200.0], "threads=1": [100.0, 400.0], "threads=2": [200.0, 200.0]}
    assert busy.rows("busy", timed)[0] == ["busy, `default`", "250", "200", "2.00 (1.00–3.00)"]
