"""Launch templates: made once for each client token; an unknown one is not found."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses.launch_templates import LaunchTemplates

from infra.local.calls.cloud import Cloud
from infra.local.calls.launch_spec import decode_user_data
from infra.local.calls.patches import Original, patch


@patch(LaunchTemplates, "create_launch_template", why="a client token makes the call idempotent")
def create_launch_template(cloud: Cloud, original: Original, response: Any) -> Any:
    decode_user_data((response._get_param("LaunchTemplateData") or {}).get("UserData"))
    return cloud.tokens.once(response, "CreateLaunchTemplate", lambda: original(response))


@patch(LaunchTemplates, "create_launch_template_version", why="moto ignores the version it starts from")
def create_launch_template_version(_cloud: Cloud, original: Original, response: Any) -> ActionResult:
    source, backend = response._get_param("SourceVersion"), response.ec2_backend
    name, wanted = response._get_param("LaunchTemplateName"), response._get_param("LaunchTemplateId")
    known = backend.get_launch_template_by_name(name) if name else backend.get_launch_template(wanted)
    data = response._get_param("LaunchTemplateData") or {}
    decode_user_data(data.get("UserData"))
    before = known.get_version(source).data if source else {}
    answer: ActionResult = original(response)
    known.versions[-1].data = {**before, **data}
    return answer


@patch(LaunchTemplates, "delete_launch_template", why="moto calls an unknown template a missing parameter")
def delete_launch_template(_cloud: Cloud, original: Original, response: Any) -> ActionResult:
    name, known = response._get_param("LaunchTemplateName"), response.ec2_backend.launch_template_name_to_ids
    if name and name not in known:
        raise EC2ClientError(
            "InvalidLaunchTemplateName.NotFoundException",
            f"The specified launch template, with template name {name}, does not exist.",
        )
    wanted = response._get_param("LaunchTemplateId")
    if wanted and wanted not in response.ec2_backend.launch_templates:
        raise EC2ClientError(
            "InvalidLaunchTemplateId.NotFound",
            f"The specified launch template, with template ID {wanted}, does not exist.",
        )
    answer: ActionResult = original(response)
    return answer
