"""Keys: the ed25519 key pair of a cluster, made here, so that its private half never crosses the network."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from infra.ec2 import tags
from infra.ec2.region import Region
from infra.ec2.tags import ClusterTags
from infra.errors import UsageError
from infra.private_key import PrivateKey


def key_name(cluster: str) -> str:
    return f"sparknet-{cluster}"


def key_file(home: Path, region: str, cluster: str) -> Path:
    """Where the private half is kept on the machine that launched."""
    return home / "keys" / region / f"{cluster}.pem"


def make_pair(region: Region, cluster_tags: ClusterTags, home: Path, *, may_replace: bool = False) -> Path:
    """The cluster's key pair, in EC2 and at ``key_file``, mode 0600. Made once; found again afterwards.

    If EC2 has the public half and this machine lacks the private one, the pair is replaced where it
    ``may_replace`` (no node has it); otherwise raises UsageError.
    """
    file, known = key_file(home, region.name, cluster_tags.cluster), is_known(region, cluster_tags.cluster)
    if known and file.exists():
        return file
    if known and not may_replace:
        raise UsageError(
            f"The key of cluster {cluster_tags.cluster} is not on this machine ({file}); copy it from the "
            "machine that launched the cluster."
        )
    if known:
        region.change("delete_key_pair", KeyName=key_name(cluster_tags.cluster))
    private, public = _new_pair(cluster_tags.cluster)
    # before EC2 learns of it: if we are killed in between, the next launch makes another pair
    _write_private(file, private)
    region.change(
        "import_key_pair",
        KeyName=key_name(cluster_tags.cluster),
        PublicKeyMaterial=public,
        TagSpecifications=cluster_tags.specification(("key-pair",)),
        tolerate=("InvalidKeyPair.Duplicate",),  # an earlier attempt of this very call
    )
    return file


def own_key(file: Path) -> str:
    """The public half of the key in ``file``, which is made if there is none."""
    if not file.exists():
        private, _ = _new_pair("healer")
        _write_private(file, private)
    from cryptography.hazmat.primitives import serialization

    key = serialization.load_ssh_private_key(file.read_bytes(), None)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{public.decode()} sparknet-healer"


def is_known(region: Region, cluster: str) -> bool:
    """Whether EC2 has the cluster's own key pair."""
    found = region.read("describe_key_pairs", Filters=tags.of_cluster(cluster))["KeyPairs"]
    return any(pair["KeyName"] == key_name(cluster) for pair in found)


def known_hosts_file(home: Path, region: str, cluster: str) -> Path:
    """Where the keys that the cluster's nodes have shown are kept."""
    return home / "known_hosts" / region / cluster


def forget(home: Path, region: str, cluster: str) -> None:
    """Remove the private half and the nodes' keys from this machine, and folders that are empty then."""
    for file in (key_file(home, region, cluster), known_hosts_file(home, region, cluster)):
        file.unlink(missing_ok=True)
        for folder in (file.parent, file.parent.parent):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


def forget_hosts(home: Path, region: str, cluster: str, addresses: Collection[str]) -> None:
    """Forget the keys that were shown at ``addresses``, which other nodes may get."""
    file = known_hosts_file(home, region, cluster)
    if file.exists():
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for line in lines if line.split(" ", 1)[0] not in addresses))


def require_pair(region: Region, name: str, key: PrivateKey) -> None:
    """Raises UsageError if EC2 has no key pair ``name``, or one that ``key`` is not the private half of."""
    pair = region.read("describe_key_pairs", KeyNames=[name])["KeyPairs"][0]
    if key.is_shown_as(pair.get("KeyFingerprint", "")) is False:
        raise UsageError(
            f"{key.file} is not the private half of key pair {name} in {region.name}, whose fingerprint is "
            f"{pair['KeyFingerprint']}: no node would let it in. Name the file that belongs to it with "
            "--identity-file, or another pair with --key-pair (aws ec2 describe-key-pairs lists them)."
        )


def _new_pair(comment: str) -> tuple[bytes, bytes]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private, public + f" sparknet-{comment}".encode()


def _write_private(file: Path, private: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file.unlink(missing_ok=True)  # an old file would keep its mode, perhaps readable by others
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(private)
