"""AWS Pricing, which moto lacks: GetProducts for Linux machines of EC2.

Prices are those of ``models/prices.py``.
https://docs.aws.amazon.com/awsaccountbilling/latest/aboutv2/using-price-list-query-api.html
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from moto.ec2.models.instance_types import INSTANCE_TYPES

from infra.local.models.prices import on_demand_price, vcpus

PAGE = 100
FIXED = {
    "operatingSystem": "Linux", "tenancy": "Shared", "preInstalledSw": "NA", "capacitystatus": "Used",
    "currentGeneration": "Yes", "licenseModel": "No License required", "locationType": "AWS Region",
}  # fmt: skip


def get_products(request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to GetProducts. Filters match terms; a region that is not asked for is us-east-1."""
    wanted = {one["Field"]: one["Value"] for one in request.get("Filters") or []}
    region = wanted.get("regionCode", "us-east-1")
    found = [
        attributes
        for name in ([wanted["instanceType"]] if "instanceType" in wanted else sorted(INSTANCE_TYPES))
        if name in INSTANCE_TYPES and _fits(attributes := _attributes(name, region), wanted)
    ]
    if request.get("ServiceCode") != "AmazonEC2":
        found = []
    first = int(request.get("NextToken") or 0)
    size = min(PAGE, int(request.get("MaxResults") or PAGE))
    answer: dict[str, Any] = {"FormatVersion": "aws_v1"}
    answer["PriceList"] = [json.dumps(_product(one)) for one in found[first : first + size]]
    if first + size < len(found):
        answer["NextToken"] = str(first + size)
    return answer


def _fits(attributes: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return all(attributes.get(field, value) == value for field, value in wanted.items())


def _attributes(name: str, region: str) -> dict[str, str]:
    memory_gib = INSTANCE_TYPES[name]["MemoryInfo"]["SizeInMiB"] / 1024
    own = {
        "instanceType": name,
        "regionCode": region,
        "vcpu": str(vcpus(name)),
        "memory": f"{memory_gib:g} GiB",
    }
    return {**FIXED, **own}


def _product(attributes: Mapping[str, str]) -> dict[str, Any]:
    name = attributes["instanceType"]
    sku = f"SIM{name.upper().replace('.', '')}"
    dimension = {
        "unit": "Hrs",
        "beginRange": "0",
        "endRange": "Inf",
        "description": f"${on_demand_price(name):g} per On Demand Linux {name} Instance Hour",
        "pricePerUnit": {"USD": f"{on_demand_price(name):.10f}"},
    }
    term = {"sku": sku, "priceDimensions": {f"{sku}.JRTCKXETXF.6YS6EN2CT7": dimension}, "termAttributes": {}}
    return {
        "serviceCode": "AmazonEC2",
        "product": {"sku": sku, "productFamily": "Compute Instance", "attributes": dict(attributes)},
        "terms": {"OnDemand": {f"{sku}.JRTCKXETXF": term}},
    }
