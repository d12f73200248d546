"""Times: what moto dates, and what here is dated as moto does, is dated by the simulated clock."""

from __future__ import annotations

from datetime import datetime

from moto.ec2.models import (
    amis,
    elastic_block_store,
    fleets,
    instances,
    key_pairs,
    launch_templates,
)

from infra.local.calls import general
from infra.local.calls.cloud import Cloud
from infra.local.calls.patches import Original, patch
from infra.local.models import spot_request, volumes

MOTO = (amis, elastic_block_store, fleets, instances, key_pairs, launch_templates)
OWN = (general, spot_request, volumes)

for module in (*MOTO, *OWN):

    @patch(module, "utcnow", why="the simulated clock tells the time")
    def utcnow(cloud: Cloud, _original: Original) -> datetime:
        return cloud.clock.utcnow()
