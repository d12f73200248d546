"""Secret names: files that may hold a secret, by their names; they travel neither to a job nor back."""

from __future__ import annotations

from fnmatch import fnmatch

PATTERNS = (
    ".env",
    ".env.*",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "id_rsa*",
    "id_ecdsa*",
    "id_ed25519*",
    ".netrc",
    ".pgpass",
    ".pypirc",
    ".git-credentials",
    ".aws",
    ".ssh",
    ".gnupg",
    ".kaggle",
    "credentials",
    "credentials.json",
)


def may_be_secret(name: str) -> bool:
    """Whether a file or folder of that name may hold a secret."""
    return any(fnmatch(name, pattern) for pattern in PATTERNS)
