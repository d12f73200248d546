"""RequestSpotInstances, as older tools buy spot machines: requests stay open until they can be fulfilled.

Whether there is, is looked at a moment after the call, and whenever requests are described or changed.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-request-status.html
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses.spot_instances import SpotInstances

from infra.local.calls import launch_spec, run_instances
from infra.local.calls.cloud import Cloud
from infra.local.calls.patches import Original, patch
from infra.local.calls.spot_prices import aware
from infra.local.models.spot_request import SpotRequest

EVALUATION_SECONDS = 0.2  # simulated

#: What refuses a launch, as the status of a request that stays open.
WAITING = {
    "SpotMaxPriceTooLow": "price-too-low",
    "InsufficientInstanceCapacity": "capacity-not-available",
    "InsufficientFreeAddressesInSubnet": "constraint-not-fulfillable",
    "MaxSpotInstanceCountExceeded": "limit-exceeded",
}


@patch(SpotInstances, "request_spot_instances", why="moto's would make instances without a host")
def request_spot_instances(cloud: Cloud, _original: Original, response: Any) -> ActionResult:
    return cloud.tokens.once(response, "RequestSpotInstances", lambda: _request(cloud, response))


@patch(SpotInstances, "describe_spot_instance_requests", why="unknown ids are errors; open requests wait")
def describe_spot_instance_requests(cloud: Cloud, original: Original, response: Any) -> ActionResult:
    _find(response, response._get_param("SpotInstanceRequestIds", []))
    for request in _open(response.ec2_backend):
        _evaluate(cloud, request)
    answer: ActionResult = original(response)
    return answer


@patch(SpotInstances, "cancel_spot_instance_requests", why="unknown ids are errors; the instance runs on")
def cancel_spot_instance_requests(_cloud: Cloud, _original: Original, response: Any) -> ActionResult:
    found = _find(response, response._get_param("SpotInstanceRequestIds", []))
    response.error_on_dryrun()
    for one in found:
        if one.state == "open":
            one.set_status("canceled-before-fulfillment", "The request was canceled.")
        elif one.state == "active":
            one.set_status("request-canceled-and-instance-running", "The request was canceled.")
        one.state = "cancelled" if one.state in ("open", "active") else one.state
    answered = [{"SpotInstanceRequestId": one.id, "State": one.state} for one in found]
    return ActionResult({"CancelledSpotInstanceRequests": answered})


def _request(cloud: Cloud, response: Any) -> ActionResult:
    backend, asked = response.ec2_backend, dict(response._get_params())
    kind = asked.get("Type") or "one-time"
    if kind != "one-time":
        raise EC2ClientError(
            "UnsupportedOperation", f"This simulated cloud has one-time requests, not {kind} ones."
        )
    count = launch_spec.count_of(asked, "InstanceCount")
    price = asked.get("SpotPrice")
    market = {"MarketType": "spot", "SpotOptions": {"MaxPrice": price}}
    parameters = launch_spec.merged(asked.get("LaunchSpecification") or {}, {"InstanceMarketOptions": market})
    spec = launch_spec.resolve(cloud, backend, parameters)  # a request that cannot be is refused at once
    cloud.capacity.check_quota(spec.pool, count)
    response.error_on_dryrun()
    tags = launch_spec.tags_by_kind(asked.get("TagSpecifications") or []).get("spot-instances-request", {})
    valid_until = aware(asked["ValidUntil"]) if asked.get("ValidUntil") else None
    made = [
        SpotRequest(backend, {**parameters, "InstanceType": spec.instance_type}, spec.max_price, tags)
        for _ in range(count)
    ]
    for request in made:
        request.valid_until = valid_until
        backend.spot_instance_requests[request.id] = request
    cloud.clock.after(EVALUATION_SECONDS, lambda: _evaluate_all(cloud, made))
    return ActionResult({"SpotInstanceRequests": made})


def _evaluate_all(cloud: Cloud, requests: Iterable[SpotRequest]) -> None:
    with cloud.lock:
        for request in requests:
            _evaluate(cloud, request)


def _evaluate(cloud: Cloud, request: SpotRequest) -> None:
    """Give an open request its instance, or the status that says why it has none."""
    if request.state != "open":
        return
    if request.valid_until and request.valid_until < datetime.fromtimestamp(cloud.clock.now(), UTC):
        request.state = "cancelled"
        request.set_status("schedule-expired", "The request was not fulfilled before it expired.")
        return
    backend = request.ec2_backend
    try:
        spec = launch_spec.resolve(cloud, backend, request.parameters)
        cloud.capacity.check_price(spec.pool, spec.max_price)
        cloud.capacity.available(spec.pool, 1, at_least=1)
        launch_spec.check_addresses(spec, 1)
    except EC2ClientError as error:
        request.set_status(WAITING.get(error.code, "bad-parameters"), error.message)
        request.state = "open" if error.code in WAITING else "failed"
        return
    run_instances.make(cloud, backend, spec, 1, request=request)


def _open(backend: Any) -> list[SpotRequest]:
    return [one for one in backend.spot_instance_requests.values() if one.state == "open"]


def _find(response: Any, ids: Iterable[str]) -> list[SpotRequest]:
    known = response.ec2_backend.spot_instance_requests
    for one in ids:
        if one not in known:
            raise EC2ClientError(
                "InvalidSpotInstanceRequestID.NotFound",
                f"The spot instance request ID '{one}' does not exist",
            )
    return [known[one] for one in ids]
