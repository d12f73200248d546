"""Private keys in every form that people have them in: read, or refused by name with the cure.

The oracles are ssh-keygen and openssl, which wrote the files, and give fingerprints as AWS documents.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra import private_key
from infra.cluster import Cloud
from infra.errors import UsageError
from infra.node import login
from infra.private_key import PASSPHRASE_VARIABLE, PassphraseNeeded
from tests.infra.conftest import Run
from tests.infra.key_files import FORMS, PASSPHRASE, add_to_agent, agent_at, make, said

pytestmark = pytest.mark.skipif(
    not (shutil.which("ssh-keygen") and shutil.which("openssl")), reason="ssh-keygen or openssl is missing"
)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for form in FORMS:
        make(folder, form)
        make(folder, form, PASSPHRASE)
    said("openssl", "genpkey", "-algorithm", "ed25519", "-out", str(folder / "pkcs8-ed25519"))
    return folder


def public_line(file: Path) -> str:
    return " ".join(file.with_name(f"{file.name}.pub").read_text().split()[:2])


@pytest.mark.parametrize("form", FORMS)
def test_a_key_is_the_one_whose_public_half_lies_beside_it(form: str, keys: Path) -> None:
    found = private_key.read(keys / form)
    made = login.of_paramiko(found)
    assert f"{made.get_name()} {made.get_base64()}" == public_line(keys / form)
    assert made.asbytes() == found.public


@pytest.mark.parametrize("form", FORMS)
def test_an_encrypted_key_opens_with_its_passphrase_alone(form: str, keys: Path) -> None:
    file = keys / f"{form}-encrypted"
    closed = private_key.read(file)
    assert not closed.is_open
    opened = private_key.read(file, PASSPHRASE)
    assert opened.is_open
    assert opened.public == closed.public
    with pytest.raises(PassphraseNeeded, match="The passphrase does not open"):
        private_key.read(file, "wrong")


def test_a_key_that_openssl_made_is_read(keys: Path) -> None:
    made = login.of_paramiko(private_key.read(keys / "pkcs8-ed25519"))
    assert made.get_name() == "ssh-ed25519"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.decode().encode("utf-16"),
        lambda text: b"\n\n  " + text,
        lambda text: b"Bag Attributes\n    localKeyID: 01\n" + text,
    ],
    ids=["crlf", "bom", "utf-16", "blanks", "attributes"],
)
def test_what_editors_and_mail_do_to_a_key_is_undone(
    spoil: Callable[[bytes], bytes], keys: Path, tmp_path: Path
) -> None:
    for form in FORMS:
        file = tmp_path / form
        file.write_bytes(spoil((keys / form).read_bytes()))
        assert private_key.read(file).public == private_key.read(keys / form).public


@pytest.mark.parametrize(
    ("content", "sentences"),
    [
        (b"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n", ("a key of PuTTY", "puttygen")),
        (b"ssh-ed25519 AAAAC3Nz me\n", ("the public half", "without .pub")),
        (b"ecdsa-sha2-nistp256 AAAA me\n", ("the public half",)),
        (b"-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n", ("the public half",)),
        (b"-----BEGIN RSA PUBLIC KEY-----\nMIIB\n-----END RSA PUBLIC KEY-----\n", ("the public half",)),
        (b"---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n", ("the public half",)),
        (b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", ("a certificate",)),
        (b"-----BEGIN DSA PRIVATE KEY-----\nMIIB\n-----END DSA PRIVATE KEY-----\n", ("a DSA key",)),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n", ("cannot be read as a private key",)),
        (b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n", ("cannot be read",)),
        (b"", ("is no private key",)),
        (b"<html>Sign in</html>", ("is no private key",)),
        (bytes(100_000), ("is no private key",)),
    ],
)
def test_what_is_no_private_key_is_refused_by_name(
    content: bytes, sentences: tuple[str, ...], tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(UsageError) as refused:
        private_key.read(file)
    assert all(sentence in str(refused.value) for sentence in (*sentences, str(file)))


def test_no_damage_to_a_key_ends_in_anything_but_a_sentence(keys: Path, tmp_path: Path) -> None:
    chance = random.Random(1)
    for form in FORMS:
        for suffix in ("", "-encrypted"):
            whole = (keys / f"{form}{suffix}").read_bytes()
            for number in range(40):
                damaged = bytearray(whole)
                for _ in range(chance.randrange(1, 4)):
                    damaged[chance.randrange(len(damaged))] = chance.randrange(256)
                cut = damaged if number % 2 else damaged[: chance.randrange(len(damaged))]
                file = tmp_path / "key"
                file.write_bytes(cut)
                for passphrase in (None, PASSPHRASE):
                    with contextlib.suppress(UsageError):
                        private_key.read(file, passphrase).fingerprints()


def test_the_fingerprints_are_those_that_aws_documents(keys: Path, tmp_path: Path) -> None:
    for form in ("openssh-rsa", "pem-rsa", "pkcs8-rsa"):
        file = tmp_path / form
        shutil.copy(keys / form, file)
        file.chmod(0o600)
        said("ssh-keygen", "-p", "-q", "-m", "PEM", "-N", "", "-P", "", "-f", str(file))
        der = subprocess.run(
            ["openssl", "pkcs8", "-in", file, "-inform", "PEM", "-outform", "DER", "-topk8", "-nocrypt"],
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        public = subprocess.run(
            ["openssl", "rsa", "-in", file, "-pubout", "-outform", "DER"],
            capture_output=True,
            check=True,
            timeout=60,
        ).stdout
        made = said("openssl", "sha1", "-c", stdin=der).partition("= ")[2].strip()
        imported = said("openssl", "md5", "-c", stdin=public).partition("= ")[2].strip()
        found = private_key.read(keys / form)
        assert {made, imported} <= found.fingerprints()
        assert found.is_shown_as(made)
        assert found.is_shown_as(imported)
    shown = said("ssh-keygen", "-l", "-f", str(keys / "openssh-ed25519.pub")).split()[1]
    assert private_key.read(keys / "openssh-ed25519").is_shown_as(shown)
    assert private_key.read(keys / "openssh-ed25519-encrypted").is_shown_as(shown) is False


def test_a_closed_key_is_compared_as_far_as_its_public_half_goes(keys: Path) -> None:
    opened = private_key.read(keys / "pem-rsa-encrypted", PASSPHRASE)
    closed = private_key.read(keys / "pem-rsa-encrypted")
    answers = sorted((len(one), closed.is_shown_as(one)) for one in opened.fingerprints())
    assert answers == [(44, True), (47, True), (59, None)]


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with agent_at(tmp_path / "agent") as socket:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        yield


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("form", ["openssh-ed25519", "pem-rsa", "pkcs8-rsa"])
def test_an_encrypted_key_is_taken_from_the_agent(form: str, keys: Path, tmp_path: Path) -> None:
    file = keys / f"{form}-encrypted"
    with pytest.raises(UsageError, match=f"ssh-add .*{form}-encrypted, or set {PASSPHRASE_VARIABLE}"):
        login.require_usable(file)
    add_to_agent(file, tmp_path)
    with login.unlocked(file) as key:
        assert key.sign_ssh_data(b"something")
    assert login.is_in_agent(private_key.read(file))


def test_a_plan_and_a_launch_refuse_a_key_before_anything_is_bought(
    run: Run, simulation: Any, simulated: Cloud, keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    region = simulated.region
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    made = region.change("create_key_pair", KeyName="made-rsa", KeyType="rsa")
    other = region.change("create_key_pair", KeyName="made-ed25519", KeyType="ed25519")
    assert made is not None
    assert other is not None
    mine = {"made-rsa": tmp_path / "made.pem", "made-ed25519": tmp_path / "made-ed25519.pem"}
    mine["made-rsa"].write_text(made["KeyMaterial"])
    mine["made-ed25519"].write_text(other["KeyMaterial"])
    for form in ("openssh-ed25519", "pem-rsa", "openssh-rsa-encrypted"):
        public = (keys / f"{form}.pub").read_bytes()
        region.change("import_key_pair", KeyName=form, PublicKeyMaterial=public)
        mine[form] = keys / form
    for file in mine.values():
        file.chmod(0o600)
    wrong = []
    try:
        simulation.control("DELETE", "calls")
        monkeypatch.setenv(PASSPHRASE_VARIABLE, PASSPHRASE)
        for pair, file in mine.items():
            status, out, err = run("plan", "-k", pair, "-i", str(file))
            assert status == 0, (pair, out, err)
        for pair, file in zip(mine, [*list(mine.values())[1:], mine["made-rsa"]], strict=True):
            for verb in ("plan", "launch"):
                status, out, err = run(verb, "-k", pair, "-i", str(file))
                assert (status, f"is not the private half of key pair {pair}" in err) == (2, True), err
        monkeypatch.delenv(PASSPHRASE_VARIABLE)
        wrong.append((keys / "openssh-rsa-encrypted", "is encrypted"))
        for name, content in (
            ("putty.ppk", "PuTTY-User-Key-File-3: ssh-rsa\n"),
            ("half.pub", "ssh-rsa AAAA\n"),
        ):
            (tmp_path / name).write_text(content)
            wrong.append((tmp_path / name, "a key of PuTTY" if name == "putty.ppk" else "the public half"))
        for file, sentence in wrong:
            file.chmod(0o600 if "encrypted" in sentence else 0o644)
            status, _, err = run("launch", "-k", "made-rsa", "-i", str(file))
            assert (status, sentence in err) == (2, True), err
        assert not [call for call in simulation.control("GET", "calls") if call["changes"]]
    finally:
        for pair in mine:
            region.change("delete_key_pair", KeyName=pair)
