"""CreateFleet: instances of the cheapest pools that have them, all or none if asked, and every refusal.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateFleet.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.fleets import Fleet
from moto.ec2.responses.fleets import Fleets
from moto.ec2.utils import random_fleet_id

from infra.local.calls import launch_spec, run_instances
from infra.local.calls.allocation import Candidate, Target, allocate, described_error
from infra.local.calls.cloud import Cloud
from infra.local.calls.patches import Original, patch
from infra.local.models import spot_request
from infra.local.models.capacity import zones_with
from infra.spec import ON_DEMAND, SPOT

STRATEGIES = {
    SPOT: (
        "lowest-price", "diversified", "capacity-optimized", "capacity-optimized-prioritized",
        "price-capacity-optimized",
    ),
    ON_DEMAND: ("lowest-price", "prioritized"),
}  # fmt: skip
MOST_INSTANT = 1000  # instances of one instant fleet


@patch(Fleets, "create_fleet", why="overrides, templates, capacity, MinTargetCapacity, Errors, tokens, hosts")
def create_fleet(cloud: Cloud, _original: Original, response: Any) -> ActionResult:
    request = dict(response._get_params())
    return cloud.tokens.once(response, "CreateFleet", lambda: _create(cloud, response, request))


@patch(Fleets, "delete_fleets", why="an instant fleet goes only with its instances")
def delete_fleets(_cloud: Cloud, _original: Original, response: Any) -> ActionResult:
    terminate = response._get_bool_param("TerminateInstances")
    known = response.ec2_backend.fleets
    done, failed = [], []
    for fleet_id in response._get_param("FleetIds", []):
        fleet = known.get(fleet_id)
        if fleet is None:
            failed.append(_undeleted(fleet_id, "fleetIdDoesNotExist", "The fleet ID does not exist."))
        elif fleet.fleet_type == "instant" and not terminate:
            failed.append(
                _undeleted(
                    fleet_id, "fleetNotInDeletableState", "An instant fleet is deleted with its instances."
                )
            )
        else:
            done.append(_delete(fleet, terminate=terminate))
    return ActionResult({"SuccessfulFleetDeletions": done, "UnsuccessfulFleetDeletions": failed})


def _create(cloud: Cloud, response: Any, request: dict[str, Any]) -> ActionResult:
    backend = response.ec2_backend
    kind = request.get("Type") or "maintain"
    targets = _targets(request, kind)
    candidates = {
        target.purchase: _candidates(cloud, backend, request, target.purchase) for target in targets
    }
    outcomes = {target.purchase: allocate(cloud, target, *candidates[target.purchase]) for target in targets}
    response.error_on_dryrun()
    fleet = _record(backend, request, kind)
    instances = []
    for purchase, outcome in outcomes.items():
        for candidate, count in outcome.allocation:
            made = run_instances.make(cloud, backend, candidate.spec, count, fleet_id=fleet.id).instances
            fleet.fulfilled_capacity += count * candidate.weight
            _remember(fleet, made)
            instances.append(
                {
                    "LaunchTemplateAndOverrides": candidate.described,
                    "Lifecycle": purchase,
                    "InstanceIds": [one.id for one in made],
                    "InstanceType": candidate.spec.instance_type,
                }
            )
    errors = [error for outcome in outcomes.values() for error in outcome.errors]
    answer: dict[str, Any] = {"FleetId": fleet.id}
    if kind == "instant":
        answer |= {"Instances": instances, "Errors": errors}
    return ActionResult(answer)


def _targets(request: Mapping[str, Any], kind: str) -> list[Target]:
    """Raises InvalidParameterValue and its like for a request that cannot be."""
    asked = request.get("TargetCapacitySpecification") or {}
    total = int(asked.get("TotalTargetCapacity") or 0)
    if total < 1 or (kind == "instant" and total > MOST_INSTANT):
        raise EC2ClientError(
            "InvalidParameterValue", f"Value ({total}) for parameter TotalTargetCapacity is invalid."
        )
    each = {
        SPOT: int(asked.get("SpotTargetCapacity") or 0),
        ON_DEMAND: int(asked.get("OnDemandTargetCapacity") or 0),
    }
    default = asked.get("DefaultTargetCapacityType") or ON_DEMAND
    each[default] += max(0, total - sum(each.values()))
    options = {SPOT: request.get("SpotOptions") or {}, ON_DEMAND: request.get("OnDemandOptions") or {}}
    return [
        _target(purchase, capacity, options[purchase], kind)
        for purchase, capacity in each.items()
        if capacity > 0
    ]


def _target(purchase: str, capacity: int, options: Mapping[str, Any], kind: str) -> Target:
    strategy = (options.get("AllocationStrategy") or "lowest-price").replace("_", "-")
    strategy = {"lowestPrice": "lowest-price", "capacityOptimized": "capacity-optimized"}.get(
        strategy, strategy
    )
    if strategy not in STRATEGIES[purchase]:
        raise EC2ClientError(
            "InvalidParameterValue", f"Value ({strategy}) for parameter AllocationStrategy is invalid."
        )
    target = Target(
        purchase=purchase,
        capacity=capacity,
        strategy=strategy,
        minimum=int(options.get("MinTargetCapacity") or 0),
        single_type=bool(options.get("SingleInstanceType")),
        single_zone=bool(options.get("SingleAvailabilityZone")),
    )
    if kind != "instant" and (target.minimum or target.single_type or target.single_zone):
        raise EC2ClientError(
            "InvalidParameterCombination",
            "SingleInstanceType, SingleAvailabilityZone and MinTargetCapacity are supported only by fleets "
            "of type instant.",
        )
    if target.minimum and not (target.single_type or target.single_zone):
        raise EC2ClientError(
            "InvalidParameterCombination",
            "MinTargetCapacity needs at least one of SingleAvailabilityZone and SingleInstanceType.",
        )
    return target


def _candidates(
    cloud: Cloud, backend: Any, request: Mapping[str, Any], purchase: str
) -> tuple[list[Candidate], list[dict[str, Any]]]:
    """What could be asked, and an error for each override that cannot be."""
    candidates: list[Candidate] = []
    errors: list[dict[str, Any]] = []
    for config in request.get("LaunchTemplateConfigs") or []:
        reference = dict(config.get("LaunchTemplateSpecification") or {})
        template = launch_spec.template_data(backend, reference)
        stamp = launch_spec.tags_by_kind(template["TagSpecifications"])["instance"]
        answered = {
            "LaunchTemplateId": stamp["aws:ec2launchtemplate:id"],
            "Version": stamp["aws:ec2launchtemplate:version"],
        }
        for override in config.get("Overrides") or [{}]:
            if override.get("InstanceRequirements"):
                raise EC2ClientError(
                    "UnsupportedOperation",
                    "This simulated cloud knows instance types, not InstanceRequirements.",
                )
            for placed in _placed(backend, template, override):
                try:
                    parameters = _parameters(template, placed, request, purchase)
                    spec = launch_spec.resolve(cloud, backend, parameters)
                except EC2ClientError as error:
                    errors.append(described_error(answered, override, purchase, error))
                    continue
                candidates.append(
                    Candidate(
                        spec=spec,
                        price=cloud.capacity.price(spec.pool),
                        reference=answered,
                        override=dict(override),
                        position=len(candidates),
                    )
                )
    return candidates, errors


def _placed(backend: Any, template: Mapping[str, Any], override: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The override once for each zone it may go to: one, if it or the template names a subnet or a zone."""
    merged = launch_spec.merged(template, override)
    in_template = launch_spec.first_interface(merged).get("SubnetId") or (merged.get("Placement") or {}).get(
        "AvailabilityZone"
    )
    if merged.get("SubnetId") or override.get("AvailabilityZone") or in_template:
        return [dict(override)]
    zones = zones_with(merged.get("InstanceType") or launch_spec.DEFAULT_TYPE, backend.region_name)
    return [{**override, "AvailabilityZone": zone} for zone in zones] or [dict(override)]


def _parameters(
    template: Mapping[str, Any], override: Mapping[str, Any], request: Mapping[str, Any], purchase: str
) -> dict[str, Any]:
    """The template, the override over it, and the fleet's tags over both."""
    placement = {**(template.get("Placement") or {}), **(override.get("Placement") or {})}
    if override.get("AvailabilityZone"):
        placement["AvailabilityZone"] = override["AvailabilityZone"]
    fleet_tags = [one for one in request.get("TagSpecifications") or [] if one["ResourceType"] != "fleet"]
    names = ("InstanceType", "SubnetId", "ImageId", "BlockDeviceMappings")
    own = {name: override[name] for name in names if override.get(name)}
    market = (
        {"MarketType": "spot", "SpotOptions": {"MaxPrice": override.get("MaxPrice")}}
        if purchase == SPOT
        else None
    )
    base = {name: value for name, value in template.items() if name != "InstanceMarketOptions"}
    if override.get("SubnetId") and base.get("NetworkInterfaces"):
        base["NetworkInterfaces"] = [
            {**one, "SubnetId": override["SubnetId"]} for one in base["NetworkInterfaces"]
        ]
    return launch_spec.merged(
        base, own, {"Placement": placement, "InstanceMarketOptions": market, "TagSpecifications": fleet_tags}
    )


def _record(backend: Any, request: Mapping[str, Any], kind: str) -> Any:
    """moto's fleet, so that DescribeFleets and tags work; it launches nothing by itself."""
    fleet = Fleet(
        backend, random_fleet_id(),
        on_demand_options=request.get("OnDemandOptions") or {},
        spot_options=request.get("SpotOptions") or {},
        target_capacity_specification={"TotalTargetCapacity": 0},
        launch_template_configs=[],
        excess_capacity_termination_policy=request.get("ExcessCapacityTerminationPolicy") or "termination",
        replace_unhealthy_instances=bool(request.get("ReplaceUnhealthyInstances")),
        terminate_instances_with_expiration=bool(request.get("TerminateInstancesWithExpiration")),
        fleet_type=kind, valid_from=request.get("ValidFrom"), valid_until=request.get("ValidUntil"),
        tag_specifications=[{"ResourceType": "fleet", "Tags": _fleet_tags(request)}],
    )  # fmt: skip
    fleet.target_capacity_specification = dict(request["TargetCapacitySpecification"])
    fleet.launch_template_configs = list(request.get("LaunchTemplateConfigs") or [])
    fleet.target_capacity = int(request["TargetCapacitySpecification"]["TotalTargetCapacity"])
    backend.fleets[fleet.id] = fleet
    return fleet


def _remember(fleet: Any, instances: Iterable[Any]) -> None:
    """moto keeps spot instances by their requests, the others as they are."""
    for instance in instances:
        request = spot_request.request_of(instance)
        if request is not None:
            fleet.spot_requests.append(request)
        else:
            fleet.on_demand_instances.append({"id": instance.id, "instance": instance})


def _fleet_tags(request: Mapping[str, Any]) -> list[dict[str, str]]:
    specifications = request.get("TagSpecifications") or []
    return [tag for one in specifications if one["ResourceType"] == "fleet" for tag in one.get("Tags") or []]


def _delete(fleet: Any, *, terminate: bool) -> dict[str, str]:
    previous = fleet.state
    fleet.state = "deleted_terminating" if terminate else "deleted_running"
    if terminate:
        bought = [entry["instance"] for entry in fleet.on_demand_instances]
        for instance in (*bought, *(request.instance for request in fleet.spot_requests)):
            instance.terminate()
    return {"FleetId": fleet.id, "CurrentFleetState": fleet.state, "PreviousFleetState": previous}


def _undeleted(fleet_id: str, code: str, message: str) -> dict[str, Any]:
    return {"FleetId": fleet_id, "Error": {"Code": code, "Message": message}}
