"""What stood elsewhere in version 0.1 is still found there, with a warning that says where it is now."""

from __future__ import annotations

import pickle
import subprocess
import sys
from importlib import import_module
from types import ModuleType

import pytest

import sparknet.caffe_replica
import sparknet.replica
import sparknet.rounds
import sparknet.training
from sparknet.moved import MOVED, RENAMED


@pytest.mark.parametrize("old", MOVED)
def test_a_module_is_found_under_its_old_name(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{old} has moved to {MOVED[old]};"):
        alias = import_module(old)
    home = import_module(MOVED[old])
    public = [name for name in vars(home) if not name.startswith("_")]
    assert all(getattr(alias, name) is getattr(home, name) for name in public)
    del sys.modules[old]


def test_every_new_name_exists() -> None:
    homes = [vars(import_module(home)) for home in set(MOVED.values())]
    assert [new for new in RENAMED.values() if not any(new in names for names in homes)] == []


def test_caffe_models_are_found_where_they_were() -> None:
    with pytest.warns(DeprecationWarning, match=r"CaffeModel has moved to sparknet\.caffe_replica\.Caf"):
        assert sparknet.replica.CaffeModel is sparknet.caffe_replica.CaffeModel
    with pytest.raises(AttributeError, match="no attribute 'CafeModel'"):
        _ = sparknet.replica.CafeModel


@pytest.mark.parametrize("module", [sparknet.rounds, sparknet.training])
def test_what_passes_in_a_round_is_found_under_its_old_names(module: ModuleType) -> None:
    with pytest.warns(DeprecationWarning, match=r"Order has moved to sparknet.rounds.RoundPlan;"):
        assert module.Order is sparknet.rounds.RoundPlan
    with pytest.warns(DeprecationWarning, match=r"Gathered has moved to sparknet.rounds.RoundResult;"):
        assert module.Gathered is sparknet.rounds.RoundResult


def test_what_was_pickled_under_an_old_name_is_read() -> None:
    with pytest.warns(DeprecationWarning, match="moved"):
        assert pickle.loads(b"csparknet.replica\nCaffeModel\n.") is sparknet.caffe_replica.CaffeModel


def test_the_warning_names_the_line_that_imports() -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "always", "-c", "from sparknet import metrics; print(metrics.Log)"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.stdout == "<class 'sparknet.reporting.metrics.Log'>\n"
    assert ran.stderr.startswith("<string>:1: DeprecationWarning: sparknet.metrics has moved to")
