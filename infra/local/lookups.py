"""Looking things up: tags by resource, filters that moto lacks, and the parameters of the images.

A poll costs no more with more resources: moto matches a pattern against every tag of the account.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.utils import filter_dict_attribute_mapping
from moto.ssm.models import Parameter, ParameterDict

from infra.local.images import PARAMETERS
from infra.local.patches import Original, patch

LOADED_MARK = "sparknet_images_loaded"
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
def get_tags(_original: Original, resource: Any) -> list[dict[str, str]]:
    tags = resource.ec2_backend.tags.get(resource.id, {}) if resource.id else {}
    return [{"resource_id": resource.id, "key": key, "value": value} for key, value in tags.items()]


@patch(ParameterDict, "_check_loading_status", why="the parameters of the Deep Learning and Ubuntu images")
def check_loading_status(original: Original, parameters: Any, key: str) -> None:
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
