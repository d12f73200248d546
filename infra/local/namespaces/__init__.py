"""Hosts of Linux namespaces: instances of the embedded cloud that are real machines in all but iron.

    this machine                   the fabric (a network namespace)       a host (net, mount, pid, uts, ipc)
    sn<hash> 198.18.x.1  <-veth->  uplink 198.18.x.2
                                   br0    10.n.0.1, NAT of 203.0.113.x    eth0 10.n.a.b, sshd, sudo, nft
                                          169.254.169.254       <-veth->  /dev/nvme1n1, /dev/disk/by-id

It needs root on Linux and some tools (``needs.py``). Nothing of it outlives the server: the fabric and every
host end when the pipe to the server closes, and with them their links, routes, mounts and loop devices.

    driver.py    what simulation.py talks to       machine.py, life.py  an instance, one boot of it
    fabric.py    bridge, router, addresses         boot.py, init.py, cloudinit.py  programs of the host
    firewall.py  security groups as nft rules      wiring.py    keeps network and firewalls at what EC2 says
    blocks.py    loop devices                      disks.py     what a host sees of them
    metadata.py  169.254.169.254                   image.py     the files every host is given
    claims.py    networks nobody else uses         clean.py     the worst case
"""

from __future__ import annotations

from infra.local.namespaces.clean import clean
from infra.local.namespaces.needs import missing

__all__ = ["clean", "missing"]
