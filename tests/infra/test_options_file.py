"""The file of options: blanks are defaults, and what it gets wrong is named with its line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from infra.cli import options
from infra.errors import UsageError
from tests.infra.conftest import Asked, Run

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the file of options of the home that ``alone`` makes."""
    file = tmp_path / "home/config.yaml"

    def put(text: str) -> Path:
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        return file

    return put


@pytest.mark.parametrize("blank", ["", " ", " ~", " null", "   # no value yet"])
def test_a_blank_value_is_the_default(blank: str, asked: Asked, write: Write) -> None:
    untouched = asked()
    names = [next(word for word in one.opts if word.startswith("--"))[2:] for one in options.every()]
    write("".join(f"{name}:{blank}\n" for name in names))
    assert asked() == untouched


def test_a_file_of_comments_or_of_nothing_is_no_mistake(asked: Asked, write: Write) -> None:
    untouched = asked()
    for text in ("", "# spot-price: 0.5\n", "---\n", "\ufeff# saved by Notepad\n"):
        write(text)
        assert asked() == untouched


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("name: mine\nmax-hours: nan\n", ["--max-hours", "nan is out of range", "line 2 of"]),
        ("max-hours: .nan\n", ["nan is out of range", "line 1 of"]),
        ("# hours\n\nmax-hours: soon\n", ["'soon' is not a valid float", "line 3 of"]),
        ("slaves: 0\n", ["-s 0: a cluster needs at least one worker.", "line 1 of"]),
        ("ebs-vol-size: 99999\n", ["--ebs-vol-size 99999", "comes from line 1 of"]),
        ("spark-version: 4.1\n", ["--spark-version 4.1", "line 1 of"]),
        ("cloud: moon\n", ["'moon' is not one of", "line 1 of"]),
        ("slaves: true\n", ["line 1: slaves is no truth value"]),
        ("name: on\n", ["line 1: name is no truth value", "quotes"]),
        ("name: [a]\n", ["line 1: name is one value"]),
        ("spread: perhaps\n", ["line 1: spread is true or false, not 'perhaps'"]),
        ("zone: [us-east-1a, [b]]\n", ["line 1: zone is one value"]),
        ("slaves: 2\nslaves: 3\n", ["slaves twice, in line 1 and in line 2"]),
        ("name: x\nspot-prize: 1\n", ["spot-prize", "line 2", "Did you mean spot-price?"]),
        ("- name\n", ["holds no options"]),
        ("name: 'x\n", ["is not YAML"]),
        ("name: 2026-99-99\n", ["is not YAML"]),
    ],
)
def test_what_is_wrong_is_named_with_its_file_and_line(
    text: str,
    sentences: list[str],
    alone: Run,
    write: Write,
) -> None:
    file = write(text)
    status, out, err = alone("plan")
    assert (status, out) == (2, ""), err
    assert all(sentence in err for sentence in [*sentences, str(file)]), err
    assert len(err.splitlines()) == 1


def test_a_bad_value_of_the_environment_names_its_variable(
    alone: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in (
        ("SPARKNET_MAX_HOURS", "nan"),
        ("SPARKNET_SLAVES", "two"),
        ("SPARKNET_SLAVES", "0"),
    ):
        with monkeypatch.context() as here:
            here.setenv(variable, value)
            status, _, err = alone("plan")
            assert (status, f"from {variable} in the environment" in err) == (2, True), err


def test_what_was_typed_is_not_blamed_on_the_file(alone: Run, write: Write) -> None:
    write("max-hours: 3\n")
    _, _, err = alone("plan", "--max-hours", "-1")
    assert "--max-hours -1 is not between" in err
    assert "line" not in err


def test_one_zone_needs_no_brackets(asked: Asked, write: Write) -> None:
    write("zone: us-east-1b\n")
    assert asked().zones == ("us-east-1b",)


@pytest.mark.parametrize(
    ("text", "tags"),
    [
        ("a:b,c:d", {"a": "b", "c": "d"}),
        ("a:,b:c", {"a": "", "b": "c"}),
        ("url:http://x:80/", {"url": "http://x:80/"}),
        (r"corp\:team:vision", {"corp:team": "vision"}),
        (r"list:a\,b,c:d", {"list": "a,b", "c": "d"}),
        (r"path:C:\dir\\,x:y", {"path": "C:\\dir\\", "x": "y"}),
        (" a:b , ", {"a": "b"}),
        ("", {}),
    ],
)
def test_tags_of_all_kinds_survive(text: str, tags: dict[str, str]) -> None:
    assert options.tags(text) == tags
    assert options.tags(options.tags_as_text(tags)) == tags


@pytest.mark.parametrize("text", ["a", ":b", r"corp\:team", "a:b,a:c", "a:b,c"])
def test_tags_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--additional-tags"):
        options.tags(text)


def test_tags_can_be_a_mapping_in_the_file(asked: Asked, write: Write) -> None:
    write('additional-tags: {"corp:team": "a, b", empty: , number: 42}\n')
    assert dict(asked().tags) == {"corp:team": "a, b", "empty": "", "number": "42"}
