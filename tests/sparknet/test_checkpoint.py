"""Going on from a checkpoint is never having stopped; one that was torn or has rotted is not used."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import fsspec
import numpy as np
import pytest
import torch

from sparknet.checkpoint import Checkpoint, Checkpoints, resumed
from sparknet.data import contiguous
from sparknet.errors import CheckpointError, UsageError
from sparknet.local import LocalWorkers
from sparknet.outer import Average, DiLoCo, Outer, SlowMo
from sparknet.replica import TorchReplica
from sparknet.storage import Contents
from sparknet.training import Momentum, Settings, WorkerState, train
from sparknet.weights import Vector
from sparknet.worker import Recipe
from tests.sparknet.small import digest, pictures, small_net, small_recipe
from tests.sparknet.sources.s3 import simulated
from tests.sparknet.test_replica import caffe_model

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = pictures()


def rounds(
    recipe: Recipe,
    workers: int,
    settings: Settings,
    outer: Outer,
    folder: Path | None = None,
    stop_after: int | None = None,
) -> Vector:
    """The weights after all rounds, or after ``stop_after``; goes on from what is in ``folder``."""
    shards = [EXAMPLES[part] for part in contiguous(len(EXAMPLES), workers)]
    checkpoints = Checkpoints(str(folder)) if folder else None
    with LocalWorkers(recipe, shards) as local:
        start = resumed(checkpoints.latest(), local, outer) if checkpoints else {}
        for done in train(local, settings, outer, **start):
            if checkpoints:
                checkpoints.after(done, local, outer)
            if done.number == stop_after:
                break
    return done.weights


def adam_replica() -> TorchReplica:
    return TorchReplica(
        torch.nn.Sequential(torch.nn.Dropout(0.2), *small_net()), lambda p: torch.optim.Adam(p, lr=0.01)
    )


@pytest.mark.parametrize(
    ("workers", "outer", "momentum"),
    [
        (1, Average, "keep"),
        (3, Average, "keep"),
        (3, Average, "average"),
        (3, SlowMo, "reset"),
        (2, DiLoCo, "keep"),
    ],
)
@pytest.mark.parametrize("kind", ["torch", "caffe"])
def test_going_on_is_never_having_stopped_bit_for_bit(
    workers: int, outer: type[Average], momentum: Momentum, kind: str, tmp_path: Path
) -> None:
    recipe = small_recipe(replica=caffe_model() if kind == "caffe" else adam_replica)
    settings = Settings(rounds=8, tau=5, momentum=momentum)
    straight = rounds(recipe, workers, settings, outer())
    for stop in (3, 4):
        rounds(recipe, workers, settings, outer(), tmp_path, stop_after=stop)
    assert digest(rounds(recipe, workers, settings, outer(), tmp_path)) == digest(straight)


def checkpoint_of(number: int) -> Checkpoint:
    rng = np.random.default_rng(number)
    weights, history = (rng.standard_normal(50).astype(np.float32) for _ in range(2))
    workers = {0: WorkerState(iteration=7 * number, position=3, history=history), 2: WorkerState(iteration=1)}
    return Checkpoint(round=number, lr=0.01, weights=weights, outer={"momentum": -weights}, workers=workers)


def same(a: Checkpoint, b: Checkpoint) -> bool:
    states = [
        (x.iteration, x.position, None if x.history is None else digest(x.history))
        == (y.iteration, y.position, None if y.history is None else digest(y.history))
        for x, y in ((a.workers[k], b.workers[k]) for k in a.workers)
    ]
    return (
        (a.round, a.lr, a.workers.keys()) == (b.round, b.lr, b.workers.keys())
        and digest(a.weights) == digest(b.weights)
        and {k: digest(v) for k, v in a.outer.items()} == {k: digest(v) for k, v in b.outer.items()}
        and all(states)
    )


def saved(folder: Path, *numbers: int, keep: int = 9) -> Checkpoints:
    checkpoints = Checkpoints(str(folder), keep=keep)
    for number in numbers:
        checkpoints.save(checkpoint_of(number))
    return checkpoints


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    latest = saved(tmp_path, 1, 2).latest()
    assert latest is not None
    assert same(latest, checkpoint_of(2))


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert Checkpoints(str(tmp_path / "never")).latest() is None


def test_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2, 3, 4, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round-00000003", "round-00000004"]


def test_those_of_a_run_that_was_done_again_do_not_outlive_it(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 8, 9)
    checkpoints.save(checkpoint_of(3))
    latest = checkpoints.latest()
    assert latest is not None
    assert latest.round == 3


FILES = ["weights.f32", "outer-momentum.f32", "worker-0.f32", "manifest.json"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["torn", "flipped", "gone", "empty"])
def test_a_damaged_checkpoint_is_passed_over(file: str, damage: str, tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    path = tmp_path / "round-00000002" / file
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        path.write_bytes({"torn": data[:middle], "flipped": flipped, "empty": b""}[damage])
    latest = checkpoints.latest()
    assert latest is not None
    assert same(latest, checkpoint_of(1))


def failing_after(writes: int, contents: Contents) -> Iterator[tuple[str, bytes]]:
    for number, file in enumerate(contents):
        if number == writes:
            raise OSError(28, "No space left on device")
        yield file


@pytest.mark.parametrize("place", ["disk", "store"])
@pytest.mark.parametrize("writes", range(4))
def test_a_save_that_was_cut_off_at_any_write_leaves_the_one_before(
    place: str, writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(str(tmp_path) if place == "disk" else f"memory://cut-off/{writes}", keep=9)
    checkpoints.save(checkpoint_of(1))
    publish = checkpoints.storage.publish
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.storage, "publish", lambda n, c: publish(n, failing_after(writes, c)))
        with pytest.raises(CheckpointError, match=r"round 2 could not be saved.*No space left"):
            checkpoints.save(checkpoint_of(2))
    latest = checkpoints.latest()
    assert latest is not None
    assert same(latest, checkpoint_of(1))
    checkpoints.save(checkpoint_of(2))
    again = checkpoints.latest()
    assert again is not None
    assert same(again, checkpoint_of(2))
    if place == "disk":
        assert [path.name for path in sorted(tmp_path.iterdir())] == ["round-00000001", "round-00000002"]


def test_on_a_disk_all_is_synced_before_it_is_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        calls.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    def renamed(source: str, target: str) -> None:
        calls.append(("rename", Path(target).name))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    saved(tmp_path, 1)
    assert calls == [
        *(("sync", file) for file in FILES),
        ("sync", ".round-00000001.partial"),
        ("rename", "round-00000001"),
        ("sync", tmp_path.name),
    ]


SAVER = """
import sys
import numpy as np
from sparknet.checkpoint import Checkpoint, Checkpoints
checkpoints = Checkpoints(sys.argv[1])
for number in range(int(sys.argv[2]), 10**6):
    checkpoints.save(Checkpoint(round=number, lr=0.1, weights=np.full(1000, number, np.float32)))
    print(number, flush=True)
"""


def test_a_process_killed_while_it_saves_leaves_the_last_that_it_had_saved(tmp_path: Path) -> None:
    """Whatever it was doing: what it said was saved is there, and at most one more."""
    rng, last = np.random.default_rng(5), 0
    for _ in range(3):
        command = [sys.executable, "-c", SAVER, str(tmp_path), str(last + 1)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for _ in range(int(rng.integers(3, 12))):
                last = int(process.stdout.readline())
            time.sleep(float(rng.uniform(0, 0.02)))
            process.kill()
            last = int((process.stdout.read().split() or [last])[-1])
        latest = Checkpoints(str(tmp_path)).latest()
        assert latest is not None
        assert last <= latest.round <= last + 1
        assert np.array_equal(latest.weights, np.full(1000, latest.round, np.float32))
        last = latest.round


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a simulated S3."""
    with simulated(monkeypatch) as client:
        client.create_bucket(Bucket="runs")
        yield "s3://runs"


def test_s3_will_do(bucket: str) -> None:
    checkpoints = Checkpoints(f"{bucket}/deep/7", keep=2)
    assert checkpoints.latest() is None
    for number in (1, 2, 3, 3):
        checkpoints.save(checkpoint_of(number))
    client = boto3.client("s3")
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket="runs")["Contents"]]
    assert {key.split("/")[2] for key in keys if not key.endswith("/")} == {
        "round-00000002",
        "round-00000003",
    }
    client.put_object(Bucket="runs", Key="deep/7/round-00000003/weights.f32", Body=b"rotten")
    latest = Checkpoints(f"{bucket}/deep/7").latest()
    assert latest is not None
    assert same(latest, checkpoint_of(2))


def test_a_bucket_that_is_not_there_is_one_message(bucket: str) -> None:
    with pytest.raises((CheckpointError, UsageError), match="s3://nobody"):
        Checkpoints("s3://nobody/x").save(checkpoint_of(1))


def test_a_place_that_nothing_here_can_open_is_refused() -> None:
    with pytest.raises(UsageError, match="nosuch://x cannot be used: Protocol not known"):
        Checkpoints("nosuch://x")


def test_if_all_are_damaged_it_says_so(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    (tmp_path / "round-00000001" / "weights.f32").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"can be used: .*weights\.f32 is not what was written"):
        checkpoints.latest()


def test_any_file_system_will_do() -> None:
    checkpoints = Checkpoints("memory://runs/7", keep=1)
    checkpoints.save(checkpoint_of(1))
    checkpoints.save(checkpoint_of(2))
    latest = checkpoints.latest()
    assert latest is not None
    assert same(latest, checkpoint_of(2))
    assert len(fsspec.filesystem("memory").ls("/runs/7")) == 1


def test_a_checkpoint_is_saved_when_due_and_after_the_last_round(tmp_path: Path) -> None:
    checkpoints, outer = Checkpoints(str(tmp_path), every=3), Average()
    with LocalWorkers(small_recipe(), [EXAMPLES]) as local:
        due = [checkpoints.after(done, local, outer) for done in train(local, Settings(rounds=7, tau=1))]
    assert due == [False, False, True, False, False, True, True]


def test_where_time_counts_one_is_saved_after_so_many_seconds_and_none_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    checkpoints, outer = Checkpoints(str(tmp_path), every=None, seconds=600, at_end=False), Average()
    due = []
    with LocalWorkers(small_recipe(), [EXAMPLES]) as local:
        for done in train(local, Settings(rounds=7, tau=1), outer):
            now[0] += 250
            due.append(checkpoints.after(done, local, outer))
    assert due == [False, False, True, False, False, True, False]


def test_other_numbers_of_workers_can_go_on(tmp_path: Path) -> None:
    settings = Settings(rounds=6, tau=5)
    rounds(small_recipe(), 2, settings, Average(), tmp_path, stop_after=3)
    latest = Checkpoints(str(tmp_path)).latest()
    assert latest is not None
    histories = [state.history for state in latest.workers.values() if state.history is not None]
    with LocalWorkers(small_recipe(), [EXAMPLES[part] for part in contiguous(len(EXAMPLES), 3)]) as local:
        start = resumed(latest, local, Average())
        assert local.workers[2].replica.iteration == 15
        assert np.allclose(local.workers[2].state.history, np.mean(histories, axis=0), atol=1e-7)  # type: ignore[arg-type]
        assert len(list(train(local, settings, **start))) == 3


def test_numbers_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="keep is 0"):
        Checkpoints(str(tmp_path), keep=0)


def test_a_run_that_overlaps_saves_where_its_workers_wait_for_each_other(tmp_path: Path) -> None:
    """One that is due in between is saved at the next such round, from which a run can go on bit for bit."""
    parts = [pictures()[part] for part in contiguous(240, 3)]

    def run(folder: Path, drain_every: int) -> tuple[list[int], str]:
        checkpoints, outer = Checkpoints(str(folder), every=4, keep=9), SlowMo()
        settings = Settings(rounds=14, tau=3, overlap=True, drain_every=drain_every)
        with LocalWorkers(small_recipe(), parts) as local:
            start = resumed(checkpoints.latest(), local, outer)
            rounds = train(local, settings, outer, **start)
            done = [(r.number, r.weights, checkpoints.after(r, local, outer)) for r in rounds]
        return [number for number, _, is_saved in done if is_saved], digest(done[-1][1])

    saved_after, went_on = run(tmp_path / "a", drain_every=5)
    assert saved_after == [5, 10, 14]
    for name in ("round-00000010", "round-00000014"):
        (tmp_path / "a" / name / "manifest.json").unlink()
    assert run(tmp_path / "a", drain_every=5) == ([10, 14], went_on)
    assert run(tmp_path / "b", drain_every=4)[0] == [4, 8, 12, 14]
