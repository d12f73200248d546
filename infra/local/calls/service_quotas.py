"""Service Quotas: EC2's vCPU quotas, described and raised."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from moto.core.exceptions import JsonRESTError
from moto.servicequotas.exceptions import NoSuchResource
from moto.servicequotas.models import ServiceQuotasBackend
from moto.servicequotas.responses import ServiceQuotasResponse

from infra import aws
from infra.local.calls.cloud import Cloud
from infra.local.calls.patches import Original, patch


@patch(ServiceQuotasBackend, "get_service_quota", why="EC2's vCPU quotas are known")
def get_service_quota(
    cloud: Cloud, original: Original, backend: Any, service_code: str, quota_code: str
) -> Any:
    if service_code != "ec2":
        return original(backend, service_code, quota_code)
    found = [quota for quota in aws.quotas() if quota.code == quota_code]
    if not found:
        raise NoSuchResource
    return _described(cloud, found[0], backend.region_name)


@patch(ServiceQuotasBackend, "list_aws_default_service_quotas", why="EC2's vCPU quotas are known")
def list_aws_default_service_quotas(cloud: Cloud, original: Original, backend: Any, service_code: str) -> Any:
    if service_code != "ec2":
        return original(backend, service_code)
    return [_described(cloud, quota, backend.region_name) for quota in aws.quotas()]


@patch.add(ServiceQuotasResponse, "list_service_quotas", why="moto has only the defaults")
def list_service_quotas(_cloud: Cloud, _original: Original, response: Any) -> str:
    service_code = str(json.loads(response.body).get("ServiceCode"))
    return json.dumps({"Quotas": response.backend.list_aws_default_service_quotas(service_code)})


@patch.add(ServiceQuotasResponse, "get_aws_default_service_quota", why="moto answers it for no service")
def get_aws_default_service_quota(_cloud: Cloud, _original: Original, response: Any) -> str:
    wanted = json.loads(response.body)
    return json.dumps(
        {"Quota": response.backend.get_service_quota(wanted["ServiceCode"], wanted["QuotaCode"])}
    )


@patch.add(ServiceQuotasResponse, "request_service_quota_increase", why="not in moto")
def request_service_quota_increase(cloud: Cloud, _original: Original, response: Any) -> str:
    """Granted at once, as a small one is by AWS within minutes."""
    wanted = json.loads(response.body)
    code, value = str(wanted["QuotaCode"]), float(wanted["DesiredValue"])
    described = response.backend.get_service_quota(wanted["ServiceCode"], code)
    if value <= described["Value"]:
        raise IllegalArgumentError(
            f"The quota value that you requested is not greater than the current one: {described['Value']:g}."
        )
    cloud.capacity.quotas.change({code: value})
    kept = ("ServiceCode", "ServiceName", "QuotaCode", "QuotaName", "QuotaArn", "Unit", "GlobalQuota")
    request = {
        "Id": uuid.uuid4().hex,
        "DesiredValue": value,
        "Status": "APPROVED",
        "Created": time.time(),
        "LastUpdated": time.time(),
        **{name: described[name] for name in kept},
    }
    return json.dumps({"RequestedQuota": request})


def _described(cloud: Cloud, quota: aws.Quota, region: str) -> dict[str, Any]:
    return {
        "ServiceCode": "ec2",
        "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
        "QuotaArn": f"arn:aws:servicequotas:{region}:123456789012:ec2/{quota.code}",
        "QuotaCode": quota.code,
        "QuotaName": quota.name,
        "Value": cloud.capacity.quotas.limit(quota.code),
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
    }


class IllegalArgumentError(JsonRESTError):
    """An increase that is none."""

    def __init__(self, message: str) -> None:
        super().__init__("IllegalArgumentException", message)
