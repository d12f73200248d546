"""Spot: the request behind every spot instance."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from moto.core.utils import utcnow
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.utils import random_spot_request_id

from infra.local.models.prices import on_demand_price


class SpotRequest(TaggedEC2Resource):
    """A one-time request: open until there is an instance for it, which may be at once."""

    def __init__(
        self,
        backend: Any,
        parameters: Mapping[str, Any],  # as of RunInstances; the answer shows some of them
        max_price: float | None,
        tags: Mapping[str, str],
        fleet_id: str | None = None,
    ) -> None:
        self.ec2_backend = backend
        self.id = random_spot_request_id()
        self.instance: Any = None
        self.instance_id: str | None = None
        self.spot_instance_request_id = self.id
        self.spot_fleet_id = fleet_id
        self.parameters, self.max_price = parameters, max_price
        self.state = "open"
        self.status: dict[str, Any] = {}
        self.set_status("pending-evaluation", "Your Spot request has been submitted for review.")
        self.type = "one-time"
        self.product_description = "Linux/UNIX"
        self.instance_interruption_behavior = "terminate"
        self.create_time = utcnow()
        self.valid_until: datetime | None = None
        self.launched_availability_zone: str | None = None
        cap = max_price if max_price is not None else on_demand_price(parameters["InstanceType"])
        self.spot_price = f"{cap:.6f}"
        shown = ("ImageId", "InstanceType", "KeyName", "SubnetId", "Placement")
        self.launch_specification = {name: parameters[name] for name in shown if parameters.get(name)}
        self.launch_spec = None
        self.add_tags(dict(tags))

    def fulfil(self, instance: Any) -> None:
        """Let the request and its instance know of each other."""
        self.instance, self.instance_id = instance, instance.id
        self.launched_availability_zone = instance.placement.zone
        self.launch_specification["SecurityGroups"] = [
            {"GroupId": group.id, "GroupName": group.name} for group in instance.security_groups
        ]
        self.state = "active"
        self.set_status("fulfilled", "Your Spot request is fulfilled.")
        instance.spot_instance_request_id = self.id
        instance.lifecycle = "spot"

    def set_status(self, code: str, message: str) -> None:
        self.status = {"Code": code, "Message": message, "UpdateTime": utcnow()}

    def close(self, code: str, message: str) -> None:
        self.state = "closed"
        self.set_status(code, message)

    def get_filter_value(self, filter_name: str, method_name: str | None = None) -> Any:  # noqa: ARG002
        known = {
            "state": self.state,
            "status-code": self.status["Code"],
            "spot-instance-request-id": self.id,
            "instance-id": self.instance_id,
            "type": self.type,
            "launch.instance-type": self.launch_specification["InstanceType"],
            "launch.image-id": self.launch_specification.get("ImageId"),
            "spot-price": self.spot_price,
            "launched-availability-zone": self.launched_availability_zone,
        }
        if filter_name in known:
            return known[filter_name]
        return super().get_filter_value(filter_name, "DescribeSpotInstanceRequests")


def request_for(
    instance: Any, max_price: float | None, tags: Mapping[str, str], fleet_id: str | None = None
) -> SpotRequest:
    """The request behind a spot instance of RunInstances or CreateFleet."""
    parameters = {
        "ImageId": instance.image_id,
        "InstanceType": instance.instance_type,
        "KeyName": instance.key_name,
        "SubnetId": instance.subnet_id,
        "Placement": {"AvailabilityZone": instance.placement.zone},
    }
    request = SpotRequest(instance.ec2_backend, parameters, max_price, tags, fleet_id)
    instance.ec2_backend.spot_instance_requests[request.id] = request
    request.fulfil(instance)
    return request


def request_of(instance: Any) -> SpotRequest | None:
    """The request of an instance, None if it is not a spot instance of ours."""
    request = instance.ec2_backend.spot_instance_requests.get(
        getattr(instance, "spot_instance_request_id", None)
    )
    return request if isinstance(request, SpotRequest) else None
