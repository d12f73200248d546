"""Options: each written once, with its variable in the environment, and the ClusterSpec made of them."""

from __future__ import annotations

import enum
import math
import re
import shlex
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import click

from infra.cli import origins
from infra.cli.target import AWS, LOCAL, Target, unlock
from infra.spec import (
    GPU_TYPES,
    MASTER_TYPE,
    ON_DEMAND,
    Access,
    ClusterSpec,
    Network,
    Purchase,
    Spill,
    require,
)

_WORDS = re.compile(r"(?:\\[,:\\]|[^,])+")
_PAIR = re.compile(r"((?:\\[,:\\]|[^:\\]|\\(?![,:\\]))+):(.*)", re.DOTALL)
_ESCAPED = re.compile(r"\\([,:\\])")
_SPECIAL = re.compile(r"[,:\\]")

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_REGION = "us-east-1"
FILE = click.Path(dir_okay=False, path_type=Path)


class Finite(click.types.FloatParamType):
    """A number: neither nan, which compares with nothing, nor infinity."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is out of range; it is a finite number.", param, ctx)
        return number


class FiniteRange(Finite, click.FloatRange):
    """A finite number within bounds, which ``--help`` shows."""


def option(*names: str, **more: Any) -> Callable[[F], F]:
    """``click.option`` that also listens to the environment: ``--spot-price`` to ``SPARKNET_SPOT_PRICE``."""
    long = next(name for name in names if name.startswith("--")).partition("/")[0]
    variable = "SPARKNET_" + long[2:].upper().replace("-", "_")
    return click.option(*names, envvar=variable, **more)


class PassesOn(click.Command):
    """A command whose arguments are another program's: options that are not its own belong after --."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        typed = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            raise click.UsageError(self._cure(ctx, typed, error.option_name), ctx) from None

    def _cure(self, ctx: click.Context, typed: list[str], unknown: str) -> str:
        near = get_close_matches(unknown, [word for one in self.params for word in one.opts], n=1, cutoff=0.8)
        if near:
            return f"No such option {unknown}. Did you mean {near[0]}? What the program gets stands after --."
        place = next(index for index, word in enumerate(typed) if word.startswith(unknown))
        program = next(one for one in self.params if isinstance(one, click.Argument))
        before = self.make_parser(ctx).parse_args(typed[:place])[0].get(str(program.name))
        if isinstance(before, str | tuple) and before:
            example = shlex.join([*typed[:place], "--", *typed[place:]])
        else:
            example = f"{program.make_metavar(ctx)} -- {unknown} ..."
        return (
            f"{unknown} is no option of {ctx.info_name}; what the program gets stands after --: "
            f"{ctx.command_path} {example}"
        )


def decorate(options: list[Callable[[F], F]]) -> Callable[[F], F]:
    """All of ``options`` on one command, shown in their order."""

    def wrap(command: F) -> F:
        for add in reversed(options):
            command = add(command)
        return command

    return wrap


#: Where the cluster is, and how to log in to it.
TARGET = [
    option("--cloud", type=click.Choice([LOCAL, AWS]), default=LOCAL, help="This machine, or EC2."),
    option(
        "-r",
        "--region",
        help="Region of EC2.  [default: with --cloud aws AWS_REGION, AWS_DEFAULT_REGION or the profile's; "
        f"else {DEFAULT_REGION}]",
    ),
    option("--name", default="sparknet", show_default=True, help="The cluster's name."),
    option("-i", "--identity-file", type=FILE, help="Private half of --key-pair."),
    option("--user", default="ubuntu", show_default=True, help="The image's login user."),
    option("--ssh-config", type=FILE, help="ssh's configuration for the way to the nodes.  [default: none]"),
    option("--private-ips", is_flag=True, help="Reach the nodes at their private addresses."),
]

SLAVES = option(
    "-s", "--slaves", "--workers", "slaves", type=int, default=2, show_default=True, help="Workers."
)
CLUSTER = [
    SLAVES,
    option("-z", "--zone", "zones", multiple=True, help="Only this zone; may be repeated."),
    option(
        "-t",
        "--instance-type",
        "instance_types",
        default=",".join(GPU_TYPES),
        help="Types of the workers, with commas, the preferred first.  [default: six with one GPU]",
    ),
    option(
        "-m", "--master-instance-type", default=MASTER_TYPE, show_default=True, help="Type of the master."
    ),
    option("-a", "--ami", default="", help="Machine image.  [default: the newest Deep Learning Base image]"),
    option("--fresh", is_flag=True, help="Start from AWS's image, though there is one of `image build`."),
    option("-k", "--key-pair", default="", help="Key pair in EC2.  [default: one made for the cluster]"),
    option("-p", "--spot-price", type=Finite(), help="At most so many dollars an hour for one worker."),
    option(
        "--on-demand",
        is_flag=True,
        help="Buy workers on demand, too: dearer, never taken back, can be stopped.",
    ),
    option(
        "--fallback",
        type=click.Choice([ON_DEMAND]),
        help="What to buy when no spot machines are to be had.",
    ),
    option("--spread", is_flag=True, help="Workers may differ in type and zone."),
    option(
        "--max-hours",
        type=Finite(),
        default=12.0,
        show_default=True,
        help="The nodes end after so long; 0: never.",
    ),
    option(
        "--idle-minutes",
        type=Finite(),
        default=0.0,
        show_default=True,
        help="They end after so long without a job; 0: never.",
    ),
    option("--budget", type=Finite(), help="They end before they have cost more, in dollars."),
    option(
        "--replacements",
        type=int,
        help="So many nodes that fail are replaced.  [default: one in five, at least one]",
    ),
    option(
        "--heal",
        is_flag=True,
        help="Workers that are lost are replaced by a healer on the master, with a role of IAM of its own.",
    ),
    option("--max-price-per-hour", type=Finite(), help="Refuse to launch what could cost more, in dollars."),
    option("--ebs-vol-num", type=int, default=1, show_default=True, help="Volumes a node for what spills."),
    option("--ebs-vol-size", type=int, default=100, show_default=True, help="Their size in GiB."),
    option("--ebs-vol-type", default="gp3", show_default=True, help="Their type."),
    option("--user-data", type=FILE, help="What cloud-init gets.  [default: cloud-config.txt]"),
    option("--spark-version", default="", help="Version of pyspark.  [default: the image's]"),
    option("--bucket", default="", help="Bucket for what jobs save; made if missing, kept by destroy."),
    option("--instance-profile-name", default="", help="IAM role of the nodes; instead of keys on them."),
    option("--vpc-id", default="", help="VPC.  [default: the region's default one]"),
    option("--subnet-id", default="", help="Subnet.  [default: any of the VPC]"),
    option("--placement-group", default="", help="Placement group; it has to exist."),
    option(
        "--additional-tags",
        default="",
        help="key:value,key:value on everything that is made; \\: and \\, stand for themselves.",
    ),
    option(
        "--additional-security-group",
        "additional_groups",
        multiple=True,
        help="A group's id; may be repeated.",
    ),
    option("--authorized-address", default="", help="CIDR that may use ssh.  [default: this machine's]"),
    option("--open-to-the-world", is_flag=True, help="Allow --authorized-address 0.0.0.0/0."),
    option(
        "--without-gpu",
        is_flag=True,
        help="Go on where a type's GPUs do not answer (always so with --cloud local).",
    ),
]

#: Options of spark-ec2 that something else has replaced.
REPLACED = {
    "copy_aws_credentials": "--copy-aws-credentials does nothing: no key belongs on a node. "
    "Give the nodes a role with --instance-profile-name.",
    "no_ganglia": "--no-ganglia does nothing: there is no Ganglia. Spark's own pages are on the master.",
}
OF_SPARK_EC2 = [
    click.option("--copy-aws-credentials", is_flag=True, hidden=True),
    click.option("--no-ganglia", is_flag=True, hidden=True),
]


JSON = option("--json", "as_json", is_flag=True, help="Print JSON.")


def every() -> list[click.Option]:
    """The options of clusters, in their order."""
    return _made([*TARGET, *CLUSTER])


def _made(some: list[Callable[[Any], Any]]) -> list[click.Option]:
    @decorate(some)
    def command() -> None:
        """A command that has these options, to be asked for them."""

    return list(reversed(command.__click_params__))


def _is_set(value: Any) -> bool:
    """False for the object by which click says that there is no value."""
    return not (isinstance(value, enum.Enum) and value.name == "UNSET")


def _name(one: click.Option) -> str:
    return next(word for word in one.opts if word.startswith("--"))[2:]


def of_cluster(*names: str) -> list[Callable[[F], F]]:
    """Those of the options of clusters that are called so."""
    return [one for one, made in zip(CLUSTER, _made(CLUSTER), strict=True) if _name(made) in names]


def defaults() -> dict[str, Any]:
    """What a command has that was given no option of a cluster."""
    ctx = click.Context(click.Command("nothing"))
    given = {str(one.name): one.process_value(ctx, one.get_default(ctx)) for one in _made(CLUSTER)}
    return {name: value if _is_set(value) else None for name, value in given.items()}


def target(values: dict[str, Any]) -> Target:
    """The Target of the options in ``values``, which are taken out. An argument's name goes before --name."""
    name, word = values.pop("name"), values.pop("cluster", None)
    cloud = values.pop("cloud")
    return Target(
        cloud=cloud,
        region=values.pop("region") or _configured_region(cloud) or DEFAULT_REGION,
        name=word or name,
        identity_file=values.pop("identity_file"),
        user=values.pop("user"),
        private_ips=values.pop("private_ips"),
        ssh_config=values.pop("ssh_config"),
    )


def _configured_region(cloud: str) -> str:
    """The region of the user's AWS configuration, which says nothing about the embedded cloud."""
    if cloud != AWS:
        return ""
    from infra.ec2 import credentials

    return credentials.configured_region()


def names_a_cluster(command: F) -> F:
    """Let the cluster's name be given as an argument as well: ``destroy sparknet``."""
    return click.argument("cluster", required=False)(command)


def reaches_a_cluster(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the options of a Target, and pass it one as its first argument."""

    def with_target(**values: Any) -> Any:
        return command(target(values), **values)

    with_target.__name__, with_target.__doc__ = command.__name__, command.__doc__
    with_target.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    return decorate(TARGET)(with_target)


@origins.named()
def spec(where: Target, values: dict[str, Any]) -> ClusterSpec:
    """The cluster that the options describe. Raises UsageError."""
    unlock(where.identity_file)
    return ClusterSpec(
        name=where.name,
        region=where.region,
        zones=tuple(values["zones"]),
        workers=values["slaves"],
        instance_types=tuple(word.strip() for word in values["instance_types"].split(",") if word.strip()),
        master_instance_type=values["master_instance_type"],
        image=values["ami"],
        use_own_image=not values["fresh"],
        user_data=values["user_data"],
        spark_version=values["spark_version"],
        instance_profile=values["instance_profile_name"],
        bucket=values["bucket"],
        require_gpus=where.cloud == AWS and not values["without_gpu"],
        max_hours=values["max_hours"],
        idle_minutes=values["idle_minutes"],
        budget=values["budget"],
        replacements=values["replacements"],
        heal=values["heal"],
        tags=tags(values["additional_tags"]),
        purchase=Purchase(
            spot_price=values["spot_price"],
            on_demand=values["on_demand"],
            fallback_on_demand=values["fallback"] == ON_DEMAND,
            spread=values["spread"],
            max_price_per_hour=values["max_price_per_hour"],
        ),
        spill=Spill(
            count=values["ebs_vol_num"], size_gib=values["ebs_vol_size"], type=values["ebs_vol_type"]
        ),
        network=Network(
            vpc_id=values["vpc_id"],
            subnet_id=values["subnet_id"],
            private_ips=where.private_ips,
            authorized_address=values["authorized_address"],
            open_to_the_world=values["open_to_the_world"],
            additional_security_groups=tuple(values["additional_groups"]),
            placement_group=values["placement_group"],
        ),
        access=Access(key_pair=values["key_pair"], identity_file=where.identity_file, user=where.user),
    )


def tags(text: str) -> dict[str, str]:
    """The tags that ``key:value,key:value`` stands for.

    The first colon ends a key. A backslash before a colon, a comma or a backslash takes its meaning away.
    """
    pairs = dict[str, str]()
    for word in filter(None, (one.strip() for one in _WORDS.findall(text))):
        found = _PAIR.fullmatch(word)
        key, value = (_ESCAPED.sub(r"\1", part) for part in found.groups()) if found else ("", "")
        require(key, f"--additional-tags {word!r} is not of the form key:value.")
        require(key not in pairs, f"--additional-tags has {key!r} twice; EC2 keeps one value of each key.")
        pairs[key] = value
    return pairs


def tags_as_text(pairs: Mapping[str, str]) -> str:
    """What ``tags`` reads as ``pairs``."""
    return ",".join(":".join(_SPECIAL.sub(r"\\\g<0>", part) for part in pair) for pair in pairs.items())
