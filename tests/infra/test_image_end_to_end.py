"""An image built by the command on process hosts; a cluster launched from it has a Spark that works."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.test_end_to_end import User

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    somebody = User(tmp_path)
    yield somebody
    somebody.types("local", "clean")


def test_a_cluster_starts_from_the_image_that_was_built(user: User) -> None:
    assert "There is no image" in user.types("image", "list")
    told = user.types("image", "build")
    assert "is built: ami-" in told
    assert "removed instance" in told
    (made,) = json.loads(user.types("image", "list", "--json"))
    kept = user.folder / "home/local/images" / made["id"]
    assert (kept / "opt/sparknet/recipe").read_text().strip() == made["recipe"]
    assert list((kept / "opt/sparknet/conf").iterdir()) == []
    assert "starts from it" in user.types("image", "show", made["name"])

    told = user.types("launch", "-s", "1", "from-image")
    assert f"The nodes start from {made['name']}" in told
    state = json.loads(user.types("status", "from-image", "--json"))["status"]
    assert state["health"]["status"] == "ALIVE"
    for node in (state["cluster"]["master"], *state["cluster"]["workers"]):
        assert node["image"] == made["id"]
        spark = user.folder / "home/local/hosts" / node["id"] / "opt/sparknet/spark"
        assert (spark / "bin/spark-class").exists()
    user.types("destroy", "from-image", "--yes")

    assert "needs --yes" in user.types("image", "delete", made["id"], status=2)
    assert "2 resources removed" in user.types("image", "delete", made["id"], "--yes")
    assert user.processes() == []
    assert not (user.folder / "home").exists()
