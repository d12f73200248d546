"""The embedded cloud: a simulated EC2 on this machine, whose instances are hosts of this machine.

    sparknet-ec2 --cloud local                       any tool that speaks EC2
          |  boto3                                          |  AWS_ENDPOINT_URL
          v                                                 v
    http/  ->  moto + calls/  (server.py, one background process per home, 127.0.0.1 only)
                     |  RunInstances, CreateFleet, AttachVolume ...
                     v
    hosts/:  one folder, one loopback address and one init process per instance
                     ^
    hosts/client.py  |  run, put, get: what SSH is on EC2

``open_cloud()`` finds the running cloud of a home folder or starts it; README.md in this folder says how to
use it with other tools, how to give it a scenario (capacity, prices, quotas, faults), and what is not real.
"""

from __future__ import annotations

from infra.local.cloud import LocalCloud, clean, open_cloud

__all__ = ["LocalCloud", "clean", "open_cloud"]
