"""Healing: what the healer does about workers that are lost, as its role, on hosts that run nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from infra import cluster, healing, policies
from infra.cluster import Cloud
from infra.ec2 import network, nodes, profiles
from infra.ec2.nodes import Node
from infra.ec2.region import Region
from infra.events import Event, Note, ignore
from infra.healer_settings import HealerSettings
from infra.healing import Healer, Recipe
from infra.local import LocalCloud
from infra.node import user_data
from infra.spec import ClusterSpec, Purchase
from infra.survey import survey
from tests.infra.conftest import Run
from tests.infra.hosts import ScriptedHost
from tests.infra.local.instance_roles import credentials_of
from tests.infra.test_resize import Hosts, silent


@pytest.fixture
def hosts(simulated: Cloud) -> Hosts:
    """The hosts of ``simulated``."""
    made = Hosts()
    object.__setattr__(simulated, "connect", made.connect)
    object.__setattr__(simulated, "login_seconds", 0.05)
    return made


class Healed:
    """A ready cluster of four workers, and its healer with a clock that the test turns."""

    def __init__(self, simulation: LocalCloud, simulated: Cloud, hosts: Hosts, spec: ClusterSpec) -> None:
        self.simulation, self.cloud, self.hosts, self.spec = simulation, simulated, hosts, spec
        found = survey(simulated.region, spec)
        self.made = cluster.launch(simulated, replace(spec, heal=True), ignore)
        assert self.made.master is not None
        role = profiles.name(simulated.region.name, spec.name)
        keys = credentials_of(simulation, self.made.master.id, role)
        self.region = Region(
            simulated.region.name,
            endpoint_url=simulation.endpoint_url,
            keys=(keys["aws_access_key_id"], keys["aws_secret_access_key"]),
            sleep=simulated.region.sleep,
            retry_seconds=5,
        )
        self.recipe = Recipe(spec=spec, pools=found.pools, gpus={})
        self.events: list[Event] = []
        self.time = 0.0

    def healer(self, spec: ClusterSpec | None = None) -> Healer:
        """Another one, as after a restart; what it knows it has from EC2."""
        mine = replace(self.cloud, region=self.region)
        recipe = replace(self.recipe, spec=spec or self.spec)
        return Healer(mine, recipe, self.events.append, clock=lambda: self.time)

    def lose(self, *names: str) -> None:
        lost = [node for node in self.workers if node.name in names]
        for node in lost:
            self.simulation.control("POST", f"interrupt/{node.id}", {"notice_seconds": 0})
            self.hosts.started.discard(node.private_ip)
        nodes.wait_gone(
            self.cloud.region, self.spec.name, lambda one: one.id in {n.id for n in lost}, deadline_seconds=20
        )

    @property
    def workers(self) -> tuple[Node, ...]:
        return cluster.find(self.cloud, self.spec.name).workers

    @property
    def ids(self) -> dict[str, str]:
        return {node.name: node.id for node in self.workers}

    @property
    def said(self) -> str:
        """By the tag of the cluster, after its moment."""
        group = network.find_group(self.cloud.region, self.spec.name)
        assert group is not None
        return group.healer.partition(" ")[2]


@pytest.fixture
def healed(simulation: LocalCloud, simulated: Cloud, hosts: Hosts, spec: ClusterSpec) -> Iterator[Healed]:
    made = Healed(simulation, simulated, hosts, replace(spec, workers=4))
    yield made
    cluster.destroy(simulated, spec.name, ignore)
    made.region.close()


NAMES = [f"worker-{number}" for number in range(1, 5)]


@pytest.mark.parametrize("lost", [["worker-2"], ["worker-1", "worker-4"], NAMES])
def test_others_take_the_names_of_the_lost_and_the_rest_is_left_alone(
    healed: Healed, lost: list[str]
) -> None:
    before = healed.ids
    healed.lose(*lost)
    for host in healed.hosts.hosts.values():
        host.ran.clear()
    healed.healer().step()
    after = healed.ids
    assert sorted(after) == NAMES
    assert sorted(name for name in NAMES if after[name] != before[name]) == sorted(lost)
    assert healed.said == f"healed {', '.join(lost)}"
    untouched = [one for one in healed.hosts.hosts.values() if one.name in set(NAMES) - set(lost)]
    assert [command for host in untouched for command in host.ran] == []
    healed.events.clear()
    healed.healer().step()
    assert (healed.ids, healed.events) == (after, [])


def test_one_that_is_given_notice_is_replaced_before_it_ends(healed: Healed) -> None:
    going = healed.workers[1]
    healed.simulation.control("POST", f"interrupt/{going.id}", {"notice_seconds": 3600})
    healed.healer().step()
    there = [node for node in healed.workers if node.name == "worker-2"]
    assert len(there) == 2
    assert going.id in {node.id for node in there}
    healed.healer().step()
    assert len(healed.workers) == 5
    nodes.terminate(healed.cloud.region, [going.id])


def test_without_capacity_it_goes_on_with_fewer_says_so_and_tries_again_with_back_off(healed: Healed) -> None:
    healed.lose("worker-1", "worker-3")
    healed.simulation.control("POST", "capacity", [{"instance_type": "*", "machines": 0}])
    healer = healed.healer()
    healer.step()
    assert healed.said.startswith("lacks worker-1, worker-3, tries again in 15 s: No capacity: no pool has 2")
    assert sorted(healed.ids) == ["worker-2", "worker-4"]
    healed.simulation.control("DELETE", "calls")
    healed.time += 14
    healer.step()
    assert "CreateFleet" not in actions(healed)
    healed.time += 2
    healer.step()
    assert "CreateFleet" in actions(healed)
    assert "tries again in 30 s" in healed.said
    healed.lose("worker-2")  # another loss does not wait for the others' turn
    two_elsewhere = {"instance_type": "g5.xlarge", "zone": "us-east-1a", "machines": 2}
    none = {"instance_type": "*", "machines": 0}
    healed.simulation.control("POST", "capacity", [none, two_elsewhere])
    healer.step()
    assert len(healed.ids) == 3
    healed.simulation.control("POST", "capacity", [])
    healed.time += 1000
    healer.step()
    assert sorted(healed.ids) == NAMES


def actions(healed: Healed) -> list[str]:
    return [one["action"] for one in healed.simulation.control("GET", "calls")]


def test_it_pays_no_more_than_the_launch_was_allowed_to(healed: Healed) -> None:
    capped = replace(healed.spec, purchase=Purchase(spot_price=0.01))
    healed.lose("worker-4")
    healed.healer(capped).step()
    assert "lacks worker-4" in healed.said
    assert "worker-4" not in healed.ids
    assert all("SpotMaxPriceTooLow" in one for one in answers(healed))


def answers(healed: Healed) -> list[str]:
    from infra.events import PoolAnswered

    return [event.answer for event in healed.events if isinstance(event, PoolAnswered)]


def test_what_a_healer_bought_before_it_was_killed_is_brought_in_by_the_next(healed: Healed) -> None:
    """Between the purchase and the names, and between the names and Spark."""
    healed.lose("worker-2")

    class KilledError(BaseException):
        """As a signal would end it."""

    def dies(_host: ScriptedHost, node: Node) -> None:
        if node.name == "worker-2":
            raise KilledError

    class Dying(Hosts):
        def connect(self, node: Node) -> ScriptedHost:
            dies(ScriptedHost(), node)
            return healed.hosts.connect(node)

    first = Healer(
        replace(healed.cloud, region=healed.region, connect=Dying().connect), healed.recipe, ignore
    )
    with pytest.raises(KilledError):
        first.step()
    bought = healed.ids["worker-2"]
    healed.healer().step()
    assert healed.ids["worker-2"] == bought
    assert len(healed.ids) == 4
    assert healed.said == "healed worker-2"


def test_a_newcomer_that_does_not_answer_is_ended_and_another_one_tried(healed: Healed) -> None:
    healed.lose("worker-3")
    seen: list[str] = []

    def first_is_silent(host: ScriptedHost, node: Node) -> None:
        if node.name == "worker-3" and (not seen or node.id in seen):
            seen.append(node.id)
            silent(host, node)

    connect = healed.hosts.connect

    def meet(node: Node) -> ScriptedHost:
        host = connect(node)
        first_is_silent(host, node)
        return host

    object.__setattr__(healed.cloud, "connect", meet)
    healer = healed.healer()
    healer.step()
    assert "lacks worker-3" in healed.said
    assert "does not answer" in healed.said
    healed.time += 20
    healer.step()
    assert healed.ids["worker-3"] not in seen
    assert nodes.alive(nodes.describe(healed.cloud.region, healed.spec.name))[3].id not in seen


def test_a_worker_that_was_taken_away_on_purpose_is_not_replaced(run: Run, healed: Healed) -> None:
    assert run("remove-slaves", healed.spec.name, "--num-slaves", "2")[0] == 0
    healed.healer().step()
    assert sorted(healed.ids) == ["worker-1", "worker-2"]
    assert healed.said == ""


def test_its_policy_has_the_permissions_that_it_uses_and_no_other(healed: Healed) -> None:
    """Every way that its calls can go; the embedded cloud refuses what the role's policy does not allow."""
    healed.simulation.control("DELETE", "calls")
    healed.lose("worker-1")
    healed.healer().step()
    healed.lose("worker-2")
    healed.healer(replace(healed.spec, purchase=Purchase(spot_price=0.01))).step()
    connect = healed.hosts.connect

    def meet(node: Node) -> ScriptedHost:
        host = connect(node)
        if node.name == "worker-2":
            silent(host, node)
        return host

    object.__setattr__(healed.cloud, "connect", meet)
    healed.healer().step()
    object.__setattr__(healed.cloud, "connect", connect)
    healed.healer().step()
    assert sorted(healed.ids) == NAMES
    made = [one for one in healed.simulation.control("GET", "calls") if one["role"]]
    assert {one for call in made for one in call["permissions"]} == set(policies.HEALER)
    assert [call for call in made if call["code"] in ("UnauthorizedOperation", "AccessDenied")] == []


def test_its_role_and_its_mark_end_with_heal_off_and_with_the_cluster(
    run: Run, healed: Healed, simulated: Cloud
) -> None:
    name = healed.spec.name
    group = network.find_group(simulated.region, name)
    assert group is not None
    assert group.heals
    assert [one.name for one in profiles.find(simulated.region, name)] == [f"sparknet-us-east-1-{name}"]
    assert run("heal", "off", name)[0] == 0
    assert profiles.find(simulated.region, name) == []
    group = network.find_group(simulated.region, name)
    assert group is not None
    assert not group.heals
    status, _, err = run("heal", "on", name, "--without-gpu")
    assert status == 0, err
    assert profiles.find(simulated.region, name)
    cluster.destroy(simulated, name, ignore)
    assert profiles.find(simulated.region, None) == []


def test_newcomers_get_the_key_of_the_healer_and_keep_their_deadline(healed: Healed) -> None:
    document = user_data.document(healed.spec, expires=healed.cloud.region.now())
    once = user_data.with_healer_key(document, "ubuntu", "ssh-ed25519 AAAA first")
    twice = user_data.with_healer_key(once, "ubuntu", "ssh-ed25519 BBBB second")
    assert b"AAAA" in once
    assert b"AAAA" not in twice
    assert twice.count(b'filename="sparknet-healer"') == 1
    assert twice.count(b"Content-Type:") == document.count(b"Content-Type:") + 1
    assert b"sparknet-deadline" in twice


def test_the_settings_say_all_that_the_recipe_says_but_for_what_is_this_machines_own(healed: Healed) -> None:
    settings = HealerSettings(cloud="aws", recipe=healed.recipe, endpoint_url="http://198.51.100.1")
    assert HealerSettings.parse(str(settings)) == settings


def test_no_look_is_taken_at_a_cluster_without_a_master(healed: Healed) -> None:
    assert healed.made.master is not None
    nodes.terminate(healed.cloud.region, [healed.made.master.id])
    healed.lose("worker-1")
    group = network.find_group(healed.cloud.region, healed.spec.name)
    assert group is not None
    assert healing.find_need(healed.cloud, healed.spec.name, group) is None


def test_no_event_is_lost(healed: Healed) -> None:
    healed.lose("worker-1")
    healed.healer().step()
    notes = [event.text for event in healed.events if isinstance(event, Note)]
    assert notes == ["lost: worker-1", "healed worker-1"]


def test_a_profile_of_the_users_own_is_held_to_what_healing_needs(
    run: Run, simulation: LocalCloud, simulated: Cloud, hosts: Hosts, spec: ClusterSpec
) -> None:
    iam = simulated.region.client("iam")
    name = f"own-{spec.name}"
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(profiles.TRUST))
    iam.create_instance_profile(InstanceProfileName=name)
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    words = ("launch", "-s", "1", spec.name, "--heal", "--instance-profile-name", name)
    status, _, err = run(*words)
    assert (status, f"{name} may not ec2:CreateFleet" in err or "ec2:CreateFleet" in err) == (2, True), err
    assert nodes.alive(nodes.describe(simulated.region, spec.name)) == []
    allowed = policies.healer("us-east-1", spec.name, passes=["arn:aws:iam::123456789012:role/own"])
    iam.put_role_policy(RoleName=name, PolicyName="heal", PolicyDocument=json.dumps(allowed))
    simulation.control(
        "POST", "faults", [{"action": "SimulatePrincipalPolicy", "kind": "error", "code": "AccessDenied"}]
    )  # type: ignore[arg-type]
    status, _, err = run(*words)
    assert status == 0, err
    assert f"What the instance profile {name} may do could not be checked" in err
    cluster.destroy(simulated, spec.name, ignore)
    assert iam.get_instance_profile(InstanceProfileName=name)  # the user's own stays
    assert name not in [one.name for one in profiles.find(simulated.region, None)]  # nor is it an orphan
