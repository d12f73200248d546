"""PrivateKey: the file of ``--identity-file``, in whatever form ssh, openssl, EC2 or PuTTY wrote it.

    OpenSSH           -----BEGIN OPENSSH PRIVATE KEY-----        ssh-keygen, and what launch makes
    PEM               -----BEGIN RSA PRIVATE KEY-----            EC2, ssh-keygen -m PEM
    PKCS#8            -----BEGIN (ENCRYPTED) PRIVATE KEY-----    openssl, ssh-keygen -m PKCS8
    refused by name   .ppk of PuTTY, public halves, certificates, keys of hardware tokens, DSA

A key with a passphrase is opened with it, or left to the ssh agent, which is known by the public half.
"""

from __future__ import annotations

import base64
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

PASSPHRASE_VARIABLE = "SPARKNET_KEY_PASSPHRASE"
MOST_BYTES = 1 << 16  # of a key file; longer ones are something else
_BEGIN, _OPENSSH = b"-----BEGIN ", b"openssh-key-v1\0"

#: How a file begins that is no private key for ssh: what it is, and the cure.
_OTHERS = (
    (b"PuTTY-User-Key-File-", "a key of PuTTY", "puttygen {file} -O private-openssh -o {stem}.pem makes one"),
    (b"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY", "a key of ssh.com", "ssh-keygen of that program exports it"),
    (b"---- BEGIN SSH2 PUBLIC KEY", "the public half", "name the private one"),
    (b"-----BEGIN PUBLIC KEY", "the public half", "name the private one"),
    (b"-----BEGIN RSA PUBLIC KEY", "the public half", "name the private one"),
    (b"ssh-", "the public half", "name the private one, usually the same without .pub"),
    (b"ecdsa-", "the public half", "name the private one, usually the same without .pub"),
    (b"sk-", "the public half of a hardware token's key", "EC2 takes RSA and ed25519 keys alone"),
    (b"-----BEGIN CERTIFICATE", "a certificate", "name the private key that belongs to a key pair of EC2"),
    (b"-----BEGIN DSA PRIVATE KEY", "a DSA key", "EC2 and today's sshd take RSA and ed25519 keys alone"),
    (b"0\x82", "a key in binary DER", "openssl pkey -inform DER -in {file} -out {stem}.pem makes a PEM file"),
)


class PassphraseNeeded(UsageError):  # noqa: N818 - named for what happened
    """The key is encrypted, and there is no passphrase, or a wrong one."""


@dataclass(frozen=True, kw_only=True)
class PrivateKey:
    """A private key for ssh.

    ``openssh``: in OpenSSH's form, not encrypted; None if the passphrase is not known. ``public``: its public
    half as ssh sends it; None if the file says it only to who knows the passphrase.
    """

    file: Path
    openssh: bytes | None
    public: bytes | None
    key: Any = None  # of cryptography

    @property
    def is_open(self) -> bool:
        return self.openssh is not None

    def fingerprints(self) -> frozenset[str]:
        """What EC2 may show for it; empty if the public half is not known.

        EC2 has a digest of its own for RSA pairs that it made (SHA-1 of the private key, PKCS#8, DER), for
        imported ones (MD5 of the public key, DER) and for ed25519 (SHA-256 of what ssh sends, base64).
        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/verify-keys.html
        """
        if self.public is None:
            return frozenset()
        made = {_sha1(self.key)} if self.key else set[str]()
        return frozenset({_sha256(self.public), _md5(self.public)} | made)

    def is_shown_as(self, fingerprint: str) -> bool | None:
        """Whether ``fingerprint``, as EC2 shows it, is that of this key; None if that cannot be said."""
        if not self.public or (not self.key and fingerprint.count(":") == hashlib.sha1().digest_size - 1):
            return None
        return any(_plain(fingerprint) == _plain(one) for one in self.fingerprints())


def shown_when_made(private: bytes) -> str:
    """The fingerprint that EC2 shows for a pair that it made, whose private half is the PEM ``private``."""
    found = _opened(Path(), _parse(private, None))
    assert found.public is not None
    return _sha256(found.public) if found.public[4:].startswith(b"ssh-ed25519") else _sha1(found.key)


def shown_when_imported(public: bytes) -> str:
    """And for one whose public half, a line as of ssh-keygen, was imported."""
    blob = base64.b64decode(public.split()[1])
    return _sha256(blob) if blob[4:].startswith(b"ssh-ed25519") else _md5(blob)


def known_passphrase() -> str | None:
    """That of the environment."""
    return os.environ.get(PASSPHRASE_VARIABLE)


def read(file: Path, passphrase: str | None = None) -> PrivateKey:
    """The key in ``file``. Without the ``passphrase`` of an encrypted one it is not open.

    Raises UsageError for what is no private key of ssh's, and PassphraseNeeded for a wrong passphrase.
    """
    content = _content(file)
    for beginning, kind, cure in _OTHERS:
        if content.startswith(beginning):
            cure = cure.format(file=file, stem=file.with_suffix(""))
            raise UsageError(
                f"{file} is {kind}, and ssh needs a private key in OpenSSH's or PEM's form: {cure}."
            )
    if _BEGIN not in content:
        raise UsageError(f"{file} is no private key: it has no line -----BEGIN ... PRIVATE KEY-----.")
    try:
        key = _parse(content, None)
    except TypeError:  # it is encrypted
        if passphrase is None:
            return _closed(file, content)
        key = _with_passphrase(file, content, passphrase)
    except Exception as error:  # noqa: BLE001 - classes of cryptography and of its parsers
        raise UsageError(_unreadable(file, error)) from None
    return _opened(file, key)


def require_private(file: Path) -> None:
    """Raises UsageError if ssh would refuse ``file``: missing, no private key, or readable by others."""
    if not file.is_file():
        raise UsageError(f"There is no key file {file}.")
    read(file)  # first: what is no private key may be read by everybody
    mode = file.stat().st_mode & 0o777
    if mode & 0o077:
        raise UsageError(f"The key file {file} can be read by others (mode {mode:o}); run chmod 600 {file}.")


def _content(file: Path) -> bytes:
    """Without what editors put before the first line, and Windows at the end of each."""
    try:
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"The key file {file} cannot be read: {error.strerror}.") from None
    if len(content) > MOST_BYTES:
        raise UsageError(f"{file} is no private key: it is larger than any.")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        content = content.decode("utf-16", "replace").encode()
    return content.removeprefix(b"\xef\xbb\xbf").lstrip().replace(b"\r\n", b"\n")


def _parse(content: bytes, passphrase: bytes | None) -> PrivateKeyTypes:
    from cryptography.hazmat.primitives import serialization

    pem = content[content.index(_BEGIN) :]  # openssl pkcs12 writes attributes before it
    if pem.startswith(_BEGIN + b"OPENSSH"):
        return serialization.load_ssh_private_key(pem, passphrase)
    return serialization.load_pem_private_key(pem, passphrase)


def _with_passphrase(file: Path, content: bytes, passphrase: str) -> PrivateKeyTypes:
    try:
        return _parse(content, passphrase.encode())
    except ValueError:
        raise PassphraseNeeded(f"The passphrase does not open {file}.") from None
    except Exception as error:  # noqa: BLE001 - classes of cryptography and of its parsers
        raise UsageError(_unreadable(file, error)) from None


def _opened(file: Path, key: PrivateKeyTypes) -> PrivateKey:
    from cryptography.hazmat.primitives import serialization

    try:
        openssh = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
    except Exception as error:  # noqa: BLE001 - ValueError, UnsupportedAlgorithm: a kind ssh does not have
        raise UsageError(_unreadable(file, error)) from None
    return PrivateKey(file=file, openssh=openssh, public=base64.b64decode(public.split()[1]), key=key)


def _closed(file: Path, content: bytes) -> PrivateKey:
    try:
        public = _public_of(file, content)
        if public:
            _public_key(public)
    except Exception as error:  # noqa: BLE001 - whatever damaged lengths and letters lead to
        raise UsageError(_unreadable(file, error)) from None
    return PrivateKey(file=file, openssh=None, public=public)


def _public_of(file: Path, content: bytes) -> bytes | None:
    """The public half of an encrypted key: in OpenSSH's form it is in clear, else perhaps in the file beside.

    The form: https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.key
    """
    if _BEGIN + b"OPENSSH" in content:
        lines = content[content.index(_BEGIN) :].splitlines()
        packed = base64.b64decode(b"".join(line for line in lines if not line.startswith(b"-----")))
        place = len(_OPENSSH)
        for _ in range(3):  # cipher, kdf, and the kdf's options
            place += 4 + int.from_bytes(packed[place : place + 4], "big")
        place += 4  # the number of keys, which is one
        size = int.from_bytes(packed[place : place + 4], "big")
        return packed[place + 4 : place + 4 + size]
    beside = file.with_name(file.name + ".pub")
    if beside.is_file():
        words = beside.read_bytes().split()
        return base64.b64decode(words[1]) if len(words) > 1 else None
    return None


def _sha1(key: Any) -> str:
    from cryptography.hazmat.primitives import serialization

    private = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return hashlib.sha1(private, usedforsecurity=False).digest().hex(":")


def _md5(public: bytes) -> str:
    from cryptography.hazmat.primitives import serialization

    packed = _public_key(public).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.md5(packed, usedforsecurity=False).digest().hex(":")


def _public_key(public: bytes) -> Any:
    from cryptography.hazmat.primitives import serialization

    kind = public[4 : 4 + int.from_bytes(public[:4], "big")]
    return serialization.load_ssh_public_key(kind + b" " + base64.b64encode(public))


def _sha256(public: bytes) -> str:
    return base64.b64encode(hashlib.sha256(public).digest()).decode()


def _plain(fingerprint: str) -> str:
    """Without what ssh-keygen writes around it."""
    return fingerprint.removeprefix("SHA256:").removeprefix("MD5:").rstrip("=")


def _unreadable(file: Path, error: Exception) -> str:
    said = str(error).partition(".")[0] or type(error).__name__
    return (
        f"{file} cannot be read as a private key ({said}); a key for EC2 is RSA or ed25519, in the form that "
        "ssh-keygen or EC2 wrote."
    )
