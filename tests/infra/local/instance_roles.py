"""What an instance finds in its metadata: the credentials of its role."""

from __future__ import annotations

import json
import urllib.request

from infra.local import LocalCloud


def credentials_of(cloud: LocalCloud, instance_id: str, role: str) -> dict[str, str]:
    """As boto3 takes them. Raises urllib.error.HTTPError if the instance has no such role."""
    imds = f"{cloud.endpoint_url}/_sparknet/imds/{instance_id}/latest"
    token = urllib.request.Request(
        f"{imds}/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    )
    with urllib.request.urlopen(token, timeout=10) as answer:
        headers = {"X-aws-ec2-metadata-token": answer.read().decode()}
    asked = urllib.request.Request(f"{imds}/meta-data/iam/security-credentials/{role}", headers=headers)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        found = json.loads(answer.read())
    return {"aws_access_key_id": found["AccessKeyId"], "aws_secret_access_key": found["SecretAccessKey"]}
