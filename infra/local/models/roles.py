"""Roles: who an instance is by its profile, and whether the policies of that role allow what it asks.

A role's key is drawn when its credentials are first asked for in an instance's metadata. Of a policy, the
actions count; resources and conditions are not compared, and calls of S3 are not checked.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import unquote

UNCHECKED = ("s3", "")
FREE = ("sts:GetCallerIdentity",)  # no policy can deny it
PREFIXES = {"servicequotas": "servicequotas", "monitoring": "cloudwatch"}
#: what EC2 does on behalf of whoever calls
IMPLIED = {"CreateFleet": ("ec2:RunInstances",)}


class Roles:
    """Keys of roles, and what the roles' policies allow. ``backend`` is moto's of IAM."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._keys: dict[str, str] = {}  # role -> access key id

    def key_of(self, role: str) -> str:
        """The access key id of the role's credentials."""
        return self._keys.setdefault(role, f"ASIASIM{secrets.token_hex(8).upper()[:13]}")

    def of_key(self, access_key_id: str) -> str:
        """The role whose key that is; empty if it is none's."""
        return next((role for role, key in self._keys.items() if key == access_key_id), "")

    def refused(self, role: str, permissions: tuple[str, ...]) -> str:
        """The first of ``permissions`` that no policy of the role allows; empty if all are allowed."""
        allowed = [action for policy in self.policies(role) for action in _actions(policy, "Allow")]
        denied = [action for policy in self.policies(role) for action in _actions(policy, "Deny")]
        for one in permissions:
            if one not in FREE and (not _matches(one, allowed) or _matches(one, denied)):
                return one
        return ""

    def policies(self, role: str) -> list[Mapping[str, Any]]:
        """The documents of the role's own policies and of those attached to it."""
        found = next((one for one in self._backend.roles.values() if one.name == role), None)
        if found is None:
            return []
        own = list(found.policies.values())
        attached = [policy.document for policy in found.managed_policies.values()]
        return [
            json.loads(text) if text.lstrip().startswith("{") else json.loads(unquote(text))
            for text in own + attached
        ]


def permissions_of(service: str, action: str, parameters: Mapping[str, Any]) -> tuple[str, ...]:
    """What a call needs, as policies name it; nothing of a service that is not checked."""
    if service in UNCHECKED:
        return ()
    prefix = PREFIXES.get(service, service)
    tagging = any(name.startswith("TagSpecification") for name in parameters)
    more = (*IMPLIED.get(action, ()), *(["ec2:CreateTags"] if service == "ec2" and tagging else []))
    return (f"{prefix}:{action}", *more)


def _actions(policy: Mapping[str, Any], effect: str) -> Iterator[str]:
    statements = policy.get("Statement", [])
    for one in statements if isinstance(statements, list) else [statements]:
        if one.get("Effect") == effect:
            actions = one.get("Action", [])
            yield from actions if isinstance(actions, list) else [actions]


def _matches(permission: str, patterns: list[str]) -> bool:
    return any(fnmatchcase(permission.lower(), pattern.lower()) for pattern in patterns)
