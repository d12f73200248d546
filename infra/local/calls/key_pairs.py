"""Key pairs: shown with the fingerprints of EC2, which differ by who made the pair and of what kind it is.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/verify-keys.html
"""

from __future__ import annotations

from typing import Any

from moto.ec2.models.key_pairs import KeyPairBackend

from infra import private_key
from infra.local.calls.cloud import Cloud
from infra.local.calls.patches import Original, patch


@patch(KeyPairBackend, "create_key_pair", why="the fingerprint is that of the private half")
def create_key_pair(
    _cloud: Cloud, original: Original, backend: Any, name: str, key_type: str, tags: dict[str, str]
) -> Any:
    pair = original(backend, name, key_type, tags)
    pair.key_fingerprint = private_key.shown_when_made(pair.material)
    return pair


@patch(KeyPairBackend, "import_key_pair", why="an ed25519 pair has ssh's own fingerprint")
def import_key_pair(
    _cloud: Cloud,
    original: Original,
    backend: Any,
    key_name: str,
    public_key_material: bytes,
    tags: dict[str, str],
) -> Any:
    pair = original(backend, key_name, public_key_material, tags)
    pair.key_fingerprint = private_key.shown_when_imported(public_key_material)
    return pair
