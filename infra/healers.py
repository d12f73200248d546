"""Healers: turns a cluster's healer on and off, from the machine of a person.

The healer (``infra.healing``) runs on the master, by a systemd unit, with a copy of this very code. It calls
EC2 as the role of the master's instance profile, which may do what ``infra.policies`` says and no more. It
logs in to newcomers with a key that was made on the master and has never left it: the public half comes to
them by their user data.
"""

from __future__ import annotations

import tempfile
from pathlib import Path, PurePosixPath
from shlex import quote

from infra import policies
from infra.cloud import Cloud, Cluster
from infra.ec2 import network, profiles, tags, template
from infra.ec2.nodes import Node
from infra.ec2.tags import ClusterTags
from infra.errors import SetupError
from infra.events import Emit, Note, phase
from infra.healer_settings import HealerSettings
from infra.healing import Recipe
from infra.node import bootstrap, bundle, spark, user_data
from infra.node.host import Host, on_all, write_text
from infra.spec import ClusterSpec

UNIT = "sparknet-healer"
FOLDER = PurePosixPath("opt/sparknet/healer")  # below a host's root
MODULE = "infra.cli.healer"


def prepare(cloud: Cloud, spec: ClusterSpec, cluster_tags: ClusterTags, emit: Emit) -> str:
    """The name of the instance profile for the healer: the user's own if there is one, or else one made here.

    Raises CredentialsError if none may be made, UsageError if the user's own may do too little.
    """
    region = cloud.region
    if spec.instance_profile:
        wanted = (*policies.HEALER, policies.PASSES)  # its workers have it as well
        doubt = profiles.require_allowed(region, spec.instance_profile, wanted)
        if doubt:
            emit(
                Note(
                    text=f"What the instance profile {spec.instance_profile} may do could not be checked "
                    f"({doubt.splitlines()[0]}); compare it with: sparknet-ec2 iam-policy healer"
                )
            )
        return spec.instance_profile
    return profiles.make(region, cluster_tags, policies.healer(region.name, spec.name))


def turn_on(cloud: Cloud, recipe: Recipe, profile: str, cluster: Cluster, emit: Emit) -> None:
    """Install the healer on the master and start it; one that runs is replaced."""
    master = cluster.master
    if master is None or master.state != "running":
        raise SetupError(f"{cluster.name} has no running master for a healer to run on.")
    with phase(emit, "healer"):
        profiles.associate(cloud.region, master.id, profile)
        host = cloud.connect(master)
        settings = HealerSettings(
            cloud=cloud.kind,
            recipe=recipe,
            endpoint_url=cloud.url_for_hosts,
            home=cloud.home_of_processes,
        )
        _install(host, settings)
        if not cloud.home_of_processes:
            _let_in(cloud, recipe.spec, cluster, host)
        _start(host)
        group = network.find_group(cloud.region, cluster.name)
        if group is not None:
            network.mark_healing(cloud.region, group, on=True)


def turn_off(cloud: Cloud, cluster: Cluster) -> None:
    """Stop the healer, and remove the role it had."""
    group = network.find_group(cloud.region, cluster.name)
    if group is not None:
        network.mark_healing(cloud.region, group, on=False)
    if cluster.master is not None and cluster.master.state == "running":
        spark.stop(cloud.connect(cluster.master), UNIT)
    for one in profiles.find(cloud.region, cluster.name):
        if group is not None and group.tags.get(tags.BUCKET):  # which the role is for as well
            profiles.forbid(cloud.region, one.name, profiles.HEALER)
        else:
            profiles.remove(cloud.region, one.name)


def _install(host: Host, settings: HealerSettings) -> None:
    folder = host.root / FOLDER
    zipped, code = folder / "code.zip", folder / "code"
    host.run(f"mkdir -p {quote(str(folder))} && chmod 700 {quote(str(folder))}", timeout_seconds=60)
    with tempfile.NamedTemporaryFile(prefix="sparknet-") as file:
        file.write(bundle.build_healer())
        file.flush()
        host.put(Path(file.name), zipped)
    script = host.root / bootstrap.ON_NODE / "unpack.sh"
    words = " ".join(map(quote, map(str, (script, zipped, code))))
    host.run(f"bash {words}", timeout_seconds=120)
    write_text(host, folder / "settings.json", str(settings), mode=0o600)


def _let_in(cloud: Cloud, spec: ClusterSpec, cluster: Cluster, master: Host) -> None:
    """Let the healer log in to the nodes there are, and to all that come."""
    folder = quote(str(master.root / FOLDER))
    key = _healer(master, f"public-key {folder}").strip()

    def let_in(node: Node) -> None:
        host = cloud.connect(node)
        text = bootstrap.render(user_data.HEALER_KEY.read_text(), {"USER": spec.access.user, "KEY": key})
        host.run("sudo bash -s", stdin=text, timeout_seconds=60)

    on_all([node for node in cluster.nodes if node.state == "running"], let_in)
    template.change(
        cloud.region,
        cluster.name,
        lambda document: user_data.with_healer_key(document, spec.access.user, key),
        tags=[],
    )


def _healer(master: Host, words: str) -> str:
    """What the healer's program says to ``words``."""
    python = quote(str(master.root / "opt/sparknet/venv/bin/python"))
    path = quote(str(master.root / FOLDER / "code"))
    return master.run(f"PYTHONPATH={path} {python} -m {MODULE} {words}", timeout_seconds=120).stdout


def _start(host: Host) -> None:
    values = {
        "ROOT": str(host.root).rstrip("/"),
        "USER": host.run("id -un", timeout_seconds=60).stdout.strip(),
    }
    text = bootstrap.render((bootstrap.AMI / f"systemd/{UNIT}.service.template").read_text(), values)
    draft = host.root / FOLDER / f"{UNIT}.service"
    script = host.root / bootstrap.ON_NODE / spark.START_UNIT
    write_text(host, draft, text)
    host.run(f"bash {quote(str(script))} {quote(str(draft))} {UNIT} again", timeout_seconds=60)
