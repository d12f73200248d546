"""A run that the end of its cluster cuts short: it saves, says so, and goes on elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sparknet.checkpoint import Checkpoints
from sparknet.errors import Interrupted, UsageError
from sparknet.local import LocalWorkers
from sparknet.notice import Notice
from sparknet.outer import Average
from sparknet.replica import TorchReplica
from sparknet.trainer.resuming import Saved
from sparknet.training import Round, Settings, train
from tests.sparknet.distributed.fixtures import shards_of
from tests.sparknet.small import momentum_sgd, small_net, small_recipe

SETTINGS = Settings(rounds=8, tau=3)


def run(saved: Saved, file: Path, *, told_after: int = 0) -> list[Round]:
    """The rounds of a run; the machine is told of its end after one of them."""
    outer, rounds = Average(), []
    with LocalWorkers(small_recipe(), shards_of(2)) as workers:
        start = saved.resume(workers, outer, 2)
        for done in train(workers, SETTINGS, outer, **start):
            rounds.append(done)
            if done.number == told_after:
                file.write_text(json.dumps({"action": "end", "time": "2026-12-01T10:02:00Z", "seconds": 120}))
            saved.after(done, workers, outer)
    return rounds


def test_a_run_that_is_told_of_the_end_saves_at_once_and_goes_on_from_there(tmp_path: Path) -> None:
    file, folder = tmp_path / "notice", str(tmp_path / "checkpoints")
    whole = run(Saved(), file)
    checkpoints = Checkpoints(folder, every=1000)
    with pytest.raises(Interrupted) as ended:
        run(Saved(checkpoints=checkpoints, notice=Notice(file)), file, told_after=3)
    assert str(ended.value) == (
        "the cluster ends at 2026-12-01T10:02:00Z: the run ended after round 3 of 8; it is saved in "
        f"{folder}, and --resume goes on from there"
    )
    later = run(Saved.of(Checkpoints(folder, every=1000), resume=True, rounds=8), file)
    assert [done.number for done in later] == [4, 5, 6, 7, 8]
    np.testing.assert_array_equal(later[-1].weights, whole[-1].weights)


def test_without_checkpoints_it_says_that_nothing_was_saved(tmp_path: Path) -> None:
    file = tmp_path / "notice"
    with pytest.raises(Interrupted, match="after round 2 of 8; nothing was saved to go on from"):
        run(Saved(notice=Notice(file)), file, told_after=2)


def test_the_last_round_ends_the_run_as_always(tmp_path: Path) -> None:
    file = tmp_path / "notice"
    assert len(run(Saved(notice=Notice(file)), file, told_after=8)) == 8


def test_a_run_of_another_algorithm_net_or_solver_is_not_gone_on_with(tmp_path: Path) -> None:
    folder = str(tmp_path / "checkpoints")
    run(Saved.of(Checkpoints(folder), resume=False, rounds=8, algorithm="slowmo"), tmp_path / "notice")
    saved = Saved.of(Checkpoints(folder), resume=True, rounds=9, algorithm="slowmo")
    saved.check(small_recipe().build())
    with pytest.raises(
        UsageError, match="holds a run of --algorithm slowmo, not diloco: go on with that, or"
    ):
        Saved.of(Checkpoints(folder), resume=True, rounds=9, algorithm="diloco")
    assert Saved.of(Checkpoints(folder), resume=True, rounds=9).done == 8  # an optimiser of the user's own
    with pytest.raises(
        UsageError, match="holds a run of another net, with 243 weights where this one has 51"
    ):
        saved.check(TorchReplica(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), momentum_sgd))
    with pytest.raises(UsageError, match="holds a run of another solver, with 243 numbers of memory where"):
        saved.check(TorchReplica(small_net(), lambda parameters: torch.optim.SGD(parameters, lr=0.1)))
