"""IAM: what a role may do, by the policies it has."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.iam.exceptions import NotFoundException
from moto.iam.responses import IamResponse

from infra.local.calls.cloud import Cloud
from infra.local.calls.patches import Original, patch


@patch.add(IamResponse, "simulate_principal_policy", why="not in moto")
def simulate_principal_policy(cloud: Cloud, _original: Original, response: Any) -> ActionResult:
    role = response._get_param("PolicySourceArn").rpartition("/")[2]
    if not any(one.name == role for one in response.backend.roles.values()):
        raise NotFoundException(f"The role {role} cannot be found.")
    results = [
        {
            "EvalActionName": action,
            "EvalResourceName": "*",
            "EvalDecision": "implicitDeny" if cloud.roles.refused(role, (action,)) else "allowed",
        }
        for action in response._get_param("ActionNames")
    ]
    return ActionResult({"EvaluationResults": results, "IsTruncated": False})
