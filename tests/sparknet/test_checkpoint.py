"""Going on from a checkpoint is never having stopped; one that was torn or has rotted is not used."""

from __future__ import annotations

from pathlib import Path

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
from sparknet.training import Momentum, Settings, WorkerState, train
from sparknet.weights import Vector
from sparknet.worker import Recipe
from tests.sparknet.small import digest, pictures, small_net, small_recipe
from tests.sparknet.test_replica import caffe_model

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


def test_a_save_that_was_cut_off_at_any_write_leaves_the_one_before(tmp_path: Path) -> None:
    for writes in range(4):
        folder = tmp_path / str(writes)
        checkpoints = saved(folder, 1)
        left = iter(range(writes))
        pipe = checkpoints._files.pipe_file

        def failing(path: str, data: bytes, left=left, pipe=pipe) -> None:  # type: ignore[no-untyped-def]
            if next(left, None) is None:
                raise OSError(28, "No space left on device")
            pipe(path, data)

        checkpoints._files.pipe_file = failing
        try:
            with pytest.raises(CheckpointError, match=r"round 2 could not be saved.*No space left"):
                checkpoints.save(checkpoint_of(2))
        finally:
            checkpoints._files.pipe_file = pipe
        latest = checkpoints.latest()
        assert latest is not None
        assert same(latest, checkpoint_of(1))


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
