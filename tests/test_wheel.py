"""The wheel: it holds every file of the packages, and both commands work from it without this checkout."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import pages
from tests.pages import ROOT

PACKAGES = ("ami", "apps", "infra", "sparknet")
PAGES = ".md"  # read beside the code, not by it


def run(*command: str | Path, env: dict[str, str] | None = None, folder: Path = ROOT) -> str:
    return pages.run(command, folder, env)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made of a copy of the tracked files, for setuptools leaves its own beside them."""
    if not (ROOT / ".git").exists():
        pytest.skip("what belongs to the packages is asked of git, and this is no checkout")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in tracked():
        copy = source / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy, follow_symlinks=False)
    building = ("wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", target, source)
    run(sys.executable, "-m", "pip", *building)
    (made,) = target.glob("*.whl")
    return made


def tracked() -> list[str]:
    return [name for name in run("git", "ls-files").splitlines() if (ROOT / name).exists()]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a new environment with the wheel, which borrows the packages that it depends on."""
    environment = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    (packages,) = environment.glob("lib/python3*/site-packages")
    pip = (sys.executable, "-m", "pip", "--python", environment / "bin" / "python")
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel)
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    return environment / "bin"


@pytest.fixture
def home(installed: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    env = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    env |= {"HOME": str(tmp_path), "SPARKNET_EC2_HOME": str(tmp_path / "home")}
    spark = Path(sysconfig.get_path("scripts"))  # spark-submit and its like
    env["PATH"] = f"{installed}:{spark}:{env['PATH']}"
    yield env
    run(installed / "sparknet-ec2", "local", "clean", env=env, folder=tmp_path)


@pytest.mark.slow
def test_every_file_of_the_packages_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    wanted = {name for name in tracked() if name.split("/")[0] in PACKAGES and not name.endswith(PAGES)}
    assert not wanted - held


@pytest.mark.slow
def test_the_wheel_has_one_top_level_folder_for_each_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


@pytest.mark.slow
def test_both_commands_are_installed_and_find_their_files(
    installed: Path, home: dict[str, str], tmp_path: Path
) -> None:
    origin = "import infra, sparknet; print(infra.__file__, sparknet.__file__)"
    assert str(ROOT / "infra") not in run(installed / "python", "-c", origin, env=home, folder=tmp_path)
    assert "Usage: sparknet " in run(installed / "sparknet", "--help", env=home, folder=tmp_path)
    said = run(installed / "sparknet-ec2", "plan", "-s", "2", "--cloud", "local", env=home, folder=tmp_path)
    assert "g6.xlarge" in said


@pytest.mark.slow
@pytest.mark.spark
def test_a_cluster_is_made_and_trains_from_the_wheel(
    installed: Path, home: dict[str, str], tmp_path: Path
) -> None:
    command = installed / "sparknet-ec2"
    run(command, "launch", "-s", "1", env=home, folder=tmp_path)
    said = run(
        *(command, "submit", "CifarApp", "--", "--data", "synthetic", "--rounds", "1"),
        env=home,
        folder=tmp_path,
    )
    assert "round 1/1" in said
    assert "0 resources left" in run(command, "destroy", "--yes", env=home, folder=tmp_path)
