"""Looking things up: tags by resource, filters that moto lacks, the console, the images' parameters.

A poll costs no more with more resources: moto matches a pattern against every tag of the account.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moto.core.responses import ActionResult
from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.responses.general import General
from moto.ec2.utils import filter_dict_attribute_mapping
from moto.ssm.models import Parameter, ParameterDict

from infra.local.calls.cloud import Cloud
from infra.local.calls.patches import Original, patch
from infra.local.models.published_images import PARAMETERS

LOADED_MARK = "sparknet_images_loaded"
CONSOLES = ("console.log", "var/log/console.log", "var/log/cloud-init-output.log")  # of any kind of host
CONSOLE_CHARACTERS = 64 << 10  # as EC2
PUBLISHED = datetime(2026, 11, 1, tzinfo=UTC)


#: Filters of DescribeInstances, and the attribute of moto's instance that each compares.
FILTERS = {
    "client-token": "client_token",
    "instance-lifecycle": "lifecycle",
    "placement-group-name": "placement.group_name",
    "spot-instance-request-id": "spot_instance_request_id",
}

patch.extend(filter_dict_attribute_mapping, FILTERS)


@patch(TaggedEC2Resource, "get_tags", why="moto matches a pattern against every tag of the account")
def get_tags(_cloud: Cloud, _original: Original, resource: Any) -> list[dict[str, str]]:
    tags = resource.ec2_backend.tags.get(resource.id, {}) if resource.id else {}
    return [{"resource_id": resource.id, "key": key, "value": value} for key, value in tags.items()]


@patch(General, "get_console_output", why="what the host really said when it booted")
def get_console_output(cloud: Cloud, _original: Original, response: Any) -> ActionResult:
    instance = response.ec2_backend.get_instance(response._get_param("InstanceId"))
    folder = cloud.files_of(instance.id)
    text = "".join(_end_of(folder / name) for name in CONSOLES)
    output = Base64EncodedString.from_raw_string(text)
    return ActionResult({"InstanceId": instance.id, "Timestamp": utcnow(), "Output": output})


def _end_of(path: Path) -> str:
    return path.read_text(errors="replace")[-CONSOLE_CHARACTERS:] if path.exists() else ""


@patch(ParameterDict, "_check_loading_status", why="the parameters of the Deep Learning and Ubuntu images")
def check_loading_status(_cloud: Cloud, original: Original, parameters: Any, key: str) -> None:
    original(parameters, key)
    if getattr(parameters, LOADED_MARK, False) or not str(key or "").startswith("/aws/service/"):
        return
    setattr(parameters, LOADED_MARK, True)
    for name, image_id in PARAMETERS.items():
        parameters[name].append(_parameter(parameters, name, image_id))


def _parameter(parameters: Any, name: str, image_id: str) -> Parameter:
    return Parameter(  # type: ignore[abstract]
        account_id=parameters.account_id,
        name=name,
        value=image_id,
        parameter_type="String",
        description=None,
        allowed_pattern=None,
        keyid=None,
        last_modified_date=PUBLISHED,
        version=1,
        data_type="aws:ec2:image",
        labels=[],
        source_result=None,
    )
