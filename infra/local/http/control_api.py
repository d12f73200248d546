"""ControlApi: what a test or a person may ask of the simulation that AWS has no API for.

GET    health                      pid and folder
POST   stop                        end everything
GET    limits                      what is not real, in sentences
GET    instances/ID                how to connect to the host
GET    calls                       the call log;           DELETE calls      empty it, count from 1 again
GET    faults   POST faults [...]  faults still to come;   DELETE faults     none
POST   scenario {"boot_seconds": 30}  change boot_, lag_, notice_seconds, pools_per_fleet
POST   capacity [...]              replace the rules;      POST spot_prices [...], POST quotas {...}
POST   interrupt/ID {"notice_seconds": 5}                  reclaim a spot instance
POST   clock {"speed": 60} or {"advance_seconds": 3600}
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from infra.errors import UsageError
from infra.local.limits import limits
from infra.local.models import scenario
from infra.local.models.faults import Fault
from infra.local.models.scenario import CapacityRule, PriceRule
from infra.local.simulation import Simulation

# of a scenario; the rest has a route of its own
CHANGEABLE = ("boot_seconds", "lag_seconds", "notice_seconds", "pools_per_fleet")


class ControlApi:
    """One method for each route, named method_path."""

    def __init__(self, cloud: Simulation, stop: Callable[[], None]) -> None:
        self._cloud, self._stop = cloud, stop

    def answer(self, method: str, path: str, body: Any) -> Any:
        """Raises LookupError for an unknown route or instance, UsageError for a body that cannot be."""
        head, _, argument = path.strip("/").partition("/")
        route = getattr(self, f"{method.lower()}_{head}", None)
        if route is None:
            raise LookupError(f"there is no {method} {path}; README.md in infra/local lists what there is")
        with self._cloud.lock:
            return route(argument, body) if argument else route(body)

    def get_health(self, _body: None) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "folder": str(self._cloud.folder),
            "hosts": self._cloud.scenario.hosts,
            "caller_address": self._cloud.caller_address,
            "url_for_hosts": self._cloud.url_for_hosts,
        }

    def post_stop(self, _body: None) -> dict[str, Any]:
        self._stop()
        return {}

    def get_limits(self, _body: None) -> list[str]:
        return limits(self._cloud.scenario)

    def get_instances(self, instance_id: str, _body: None = None) -> dict[str, Any]:
        entry = self._cloud.instances.get(instance_id)
        if entry is None:
            raise LookupError(f"there is no instance {instance_id}")
        env = self._cloud.instances.share_of(instance_id) if entry.instance.state == "running" else {}
        return {"state": entry.instance.state, "env": env, **entry.machine.connection}

    def get_calls(self, _body: None) -> list[dict[str, Any]]:
        return self._cloud.call_log.listed()

    def delete_calls(self, _body: None) -> dict[str, Any]:
        self._cloud.call_log.clear()
        return {}

    def get_faults(self, _body: None) -> list[dict[str, Any]]:
        return self._cloud.faults.listed()

    def post_faults(self, body: Any) -> list[dict[str, Any]]:
        self._cloud.faults.add(scenario.each(Fault, body))
        return self._cloud.faults.listed()

    def delete_faults(self, _body: None) -> dict[str, Any]:
        self._cloud.faults.clear()
        return {}

    def post_scenario(self, body: Any) -> dict[str, Any]:
        wrong = [name for name in body if name not in CHANGEABLE]
        if wrong:
            raise UsageError(f"{wrong[0]!r} cannot be changed here, only {', '.join(CHANGEABLE)}")
        self._cloud.scenario = replace(self._cloud.scenario, **body)
        return {}

    def post_capacity(self, body: Any) -> dict[str, Any]:
        self._cloud.capacity.rules = scenario.each(CapacityRule, body)
        return {}

    def post_spot_prices(self, body: Any) -> dict[str, Any]:
        self._cloud.capacity.price_rules = scenario.each(PriceRule, body)
        return {}

    def post_quotas(self, body: Any) -> dict[str, Any]:
        if not isinstance(body, dict):
            raise UsageError("quotas are a mapping of codes to vCPUs")
        self._cloud.capacity.quotas.change(body)
        return {}

    def post_interrupt(self, instance_id: str, body: Any) -> dict[str, Any]:
        return {"time": self._cloud.lifecycle.interrupt(instance_id, (body or {}).get("notice_seconds"))}

    def post_clock(self, body: Any) -> dict[str, Any]:
        if "speed" in body:
            self._cloud.clock.set_speed(float(body["speed"]))
        if "advance_seconds" in body:
            self._cloud.clock.advance(float(body["advance_seconds"]))
        return {"now": self._cloud.clock.timestamp()}
