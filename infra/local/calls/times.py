"""Times: whatever moto dates, it dates by the simulated clock, as the answers are dated that tell of it."""

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

from infra.local.calls.cloud import Cloud
from infra.local.calls.patches import Original, patch

for module in (amis, elastic_block_store, fleets, instances, key_pairs, launch_templates):

    @patch(module, "utcnow", why="the simulated clock tells the time")
    def utcnow(cloud: Cloud, _original: Original) -> datetime:
        return cloud.clock.utcnow()
