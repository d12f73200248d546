"""The instance metadata service (IMDSv2), one path below the server's address for each instance.

Hosts find it by ``AWS_EC2_METADATA_SERVICE_ENDPOINT``, which the SDKs know, because 169.254.169.254 would
need a network of its own. Tokens are required as the instance's metadata options say.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any

from infra.local.models.clock import Clock
from infra.local.models.instances import Instances
from infra.local.models.roles import Roles

TOKEN_HEADER, LIFETIME_HEADER = "HTTP_X_AWS_EC2_METADATA_TOKEN", "HTTP_X_AWS_EC2_METADATA_TOKEN_TTL_SECONDS"
LONGEST_TOKEN_SECONDS = 21600

Answer = tuple[int, str]  # status of HTTP, text


class Metadata:
    """What instances can ask about themselves, and about their interruption."""

    def __init__(self, instances: Instances, clock: Clock, roles: Roles) -> None:
        self._instances, self._clock, self._roles = instances, clock, roles
        self._tokens: dict[str, tuple[str, float]] = {}  # token -> (instance, end of its life)
        self._notices: dict[str, tuple[str, str]] = {}  # instance -> when it will be interrupted, when told

    @property
    def date(self) -> str:
        """The moment, for the header of an answer."""
        return self._clock.date()

    def announce_interruption(self, instance_id: str, when: str) -> None:
        self._notices[instance_id] = when, self._clock.timestamp()

    def answer(self, path: str, environ: Mapping[str, Any]) -> Answer:
        """``path`` is INSTANCE/latest/..."""
        instance_id, _, rest = path.partition("/")
        entry = self._instances.get(instance_id)
        if entry is None or entry.instance.state not in ("pending", "running", "stopping", "shutting-down"):
            return 404, ""
        instance = entry.instance
        if instance.metadata_options.http_endpoint == "disabled":
            return 403, ""
        if environ["REQUEST_METHOD"] == "PUT":
            return self._new_token(instance_id, rest, environ)
        refusal = self._refusal(instance, environ)
        return (refusal, "") if refusal else _look_up(self._facts(instance), rest.removeprefix("latest/"))

    def _new_token(self, instance_id: str, path: str, environ: Mapping[str, Any]) -> Answer:
        lifetime = str(environ.get(LIFETIME_HEADER, ""))
        if (
            path != "latest/api/token"
            or not lifetime.isdigit()
            or not 1 <= int(lifetime) <= LONGEST_TOKEN_SECONDS
        ):
            return 400, ""
        now = time.monotonic()
        self._tokens = {token: kept for token, kept in self._tokens.items() if kept[1] > now}
        token = secrets.token_urlsafe(40)
        self._tokens[token] = (instance_id, now + int(lifetime))
        return 200, token

    def _refusal(self, instance: Any, environ: Mapping[str, Any]) -> int | None:
        token = environ.get(TOKEN_HEADER)
        if token is None:
            return 401 if instance.metadata_options.http_tokens == "required" else None
        owner, end = self._tokens.get(str(token), ("", 0.0))
        return None if owner == instance.id and end > time.monotonic() else 401

    def _facts(self, instance: Any) -> dict[str, str]:
        zone, address = instance.placement.zone, instance.private_ip
        facts = {
            "meta-data/ami-id": instance.image_id,
            "meta-data/ami-launch-index": str(instance.ami_launch_index),
            "meta-data/hostname": instance.private_dns_name,
            "meta-data/instance-id": instance.id,
            "meta-data/instance-life-cycle": instance.lifecycle or "on-demand",
            "meta-data/instance-type": instance.instance_type,
            "meta-data/local-hostname": instance.private_dns_name,
            "meta-data/local-ipv4": address,
            "meta-data/placement/availability-zone": zone,
            "meta-data/placement/region": zone[:-1],
            "meta-data/public-hostname": instance.public_dns_name,
            "meta-data/public-ipv4": instance.public_ip,
            "meta-data/security-groups": "\n".join(group.name for group in instance.security_groups),
            "user-data": _text(instance.user_data),
            "dynamic/instance-identity/document": self._identity(instance),
            **self._tags(instance), **self._credentials(instance), **self._notice(instance),
        }  # fmt: skip
        return {path: text for path, text in facts.items() if text is not None}

    def _identity(self, instance: Any) -> str:
        return json.dumps(
            {
                "accountId": instance.owner_id, "architecture": instance.architecture,
                "availabilityZone": instance.placement.zone, "imageId": instance.image_id,
                "instanceId": instance.id, "instanceType": instance.instance_type,
                "privateIp": instance.private_ip, "region": instance.placement.zone[:-1],
            },
            indent=2,
        )  # fmt: skip

    def _tags(self, instance: Any) -> dict[str, str]:
        if instance.metadata_options.instance_metadata_tags != "enabled":
            return {}
        return {f"meta-data/tags/instance/{tag['key']}": tag["value"] for tag in instance.get_tags()}

    def _credentials(self, instance: Any) -> dict[str, str]:
        association = instance.ec2_backend.iam_instance_profile_associations.get(instance.id)
        if association is None or not association.iam_instance_profile.roles:
            return {}
        role = association.iam_instance_profile.roles[0].name
        credentials = {
            "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": self._roles.key_of(role),
            "SecretAccessKey": "not-a-secret", "Token": "not-a-token",
            "LastUpdated": self._clock.timestamp(), "Expiration": self._clock.timestamp(6 * 3600),
        }  # fmt: skip
        return {f"meta-data/iam/security-credentials/{role}": json.dumps(credentials)}

    def _notice(self, instance: Any) -> dict[str, str]:
        if instance.id not in self._notices:
            return {}
        when, told = self._notices[instance.id]
        return {
            "meta-data/spot/instance-action": json.dumps({"action": "terminate", "time": when}),
            "meta-data/spot/termination-time": when,
            "meta-data/events/recommendations/rebalance": json.dumps({"noticeTime": told}),
        }


def _text(user_data: Any) -> str | None:
    """User data, which moto keeps in base64 (Base64EncodedString) and which may be any bytes."""
    return base64.b64decode(user_data.as_bytes()).decode(errors="replace") if user_data else None


def _look_up(facts: Mapping[str, str], path: str) -> Answer:
    """A leaf, or the names below a branch (a slash after those that are branches)."""
    path = path.rstrip("/")
    if path in facts:
        return 200, facts[path]
    below = [name.removeprefix(f"{path}/") for name in facts if name.startswith(f"{path}/")]
    names = sorted({name.partition("/")[0] + ("/" if "/" in name else "") for name in below})
    return (200, "\n".join(names)) if names else (404, "")
