"""HealerSettings: what the healer on the master is told of its cluster, as a file of JSON there.

Paths of the machine that launched, and its keys, are left out: the healer has its own.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

from infra.ec2.fleet import Pool
from infra.healing import Recipe
from infra.spec import Access, ClusterSpec, Network, Purchase, Spill


@dataclass(frozen=True, kw_only=True)
class HealerSettings:
    """``cloud``: "aws" or "local". ``endpoint_url``: of its API as the master reaches it, empty for that of
    AWS. ``home``: of the embedded cloud on this machine, where its hosts are reached through it and not by
    ssh; otherwise empty.
    """

    cloud: str
    recipe: Recipe
    endpoint_url: str = ""
    home: str = ""

    def __str__(self) -> str:
        recipe = self.recipe
        spec = replace(recipe.spec, user_data=None, access=Access(user=recipe.spec.access.user))
        content = {
            "cloud": self.cloud,
            "endpoint_url": self.endpoint_url,
            "home": self.home,
            "spec": asdict(spec),
            "pools": [asdict(pool) for pool in recipe.pools],
            "gpus": dict(recipe.gpus),
        }
        return json.dumps(content, indent=2) + "\n"

    @classmethod
    def parse(cls, text: str) -> HealerSettings:
        """What ``str`` wrote."""
        content = json.loads(text)
        recipe = Recipe(
            spec=_spec(content["spec"]),
            pools=tuple(Pool(**pool) for pool in content["pools"]),
            gpus=content["gpus"],
        )
        return cls(
            cloud=content["cloud"], recipe=recipe, endpoint_url=content["endpoint_url"], home=content["home"]
        )


def _spec(values: dict[str, Any]) -> ClusterSpec:
    parts = {"purchase": Purchase, "spill": Spill, "network": Network, "access": Access}
    simple = _with_tuples(values)
    made = {name: kind(**values[name]) for name, kind in parts.items() if name != "network"}
    return ClusterSpec(**{**simple, **made, "network": Network(**_with_tuples(values["network"]))})


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows lists alone."""
    return {name: tuple(one) if isinstance(one, list) else one for name, one in values.items()}
