from __future__ import annotations

from pathlib import Path

import pytest

from sparknet.data import cifar10, download, synthetic
from sparknet.data.locate import locate
from sparknet.errors import DataError, UsageError


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No SPARKNET_DATA, an empty cache, and no network."""
    monkeypatch.delenv("SPARKNET_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def offline(*_: object, **__: object) -> Path:
        raise DataError("the network is unreachable")

    monkeypatch.setattr(download, "fetch", offline)


def put(folder: Path) -> Path:
    cifar10.write_binary(synthetic.draw(train=20, test=10), folder)
    return folder


def test_the_folder_that_was_named_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARKNET_DATA", str(tmp_path / "elsewhere"))
    found = locate("cifar10", str(put(tmp_path / "here")))
    assert len(found.dataset.train) == 20
    assert str(tmp_path / "here") in found.origin


def test_the_environment_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARKNET_DATA", str(put(tmp_path / "set")))
    assert str(tmp_path / "set") in locate("cifar10").origin


def test_then_the_cache(tmp_path: Path) -> None:
    put(tmp_path / "cache" / "sparknet" / "cifar10")
    assert str(tmp_path / "cache") in locate("cifar10", "auto").origin


@pytest.mark.parametrize("kind", ["cifar10", "mnist"])
def test_without_network_it_draws_and_says_so_and_why(kind: str) -> None:
    found = locate(kind)
    assert found.dataset.synthetic
    assert "SYNTHETIC DATA" in found.origin
    assert "the network is unreachable" in found.origin


def test_synthetic_data_can_be_asked_for() -> None:
    found = locate("mnist", "synthetic", seed=4)
    assert found.dataset.synthetic
    assert found.dataset.train.shape == (1, 28, 28)
    assert "because" not in found.origin


def test_a_folder_that_was_named_is_never_replaced_by_drawn_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        locate("cifar10", str(tmp_path / "nowhere"))


def test_nor_is_one_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARKNET_DATA", str(tmp_path))
    with pytest.raises(DataError, match="has no MNIST in it"):
        locate("mnist")


def test_an_unknown_set_is_refused() -> None:
    with pytest.raises(UsageError, match="'svhn' is not one of cifar10, mnist"):
        locate("svhn")
