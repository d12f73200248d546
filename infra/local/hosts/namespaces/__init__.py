"""Hosts of Linux namespaces: instances of the embedded cloud that behave like machines of their own.

    this machine                   the hosts' network (a namespace)       a host (net, mount, pid, uts, ipc)
    sn<hash> 198.18.x.1  <-veth->  uplink 198.18.x.2
                                   br0    10.n.0.1, NAT of 203.0.113.x    eth0 10.n.a.b, sshd, sudo, nft
                                          169.254.169.254       <-veth->  /dev/nvme1n1, /dev/disk/by-id

It needs root on Linux and some tools (``requirements.py``). Nothing of it outlives the server: the network
and every host end when the pipe to the server closes, and with them their links, routes, mounts and loop
devices.

    driver.py    what simulation.py talks to    machine.py, boot_session.py   an instance, one boot of it
    network.py   bridge, router, addresses      boot.py, init.py, cloudinit.py   programs of the host
    firewall.py  security groups as nft rules   network_sync.py  keeps network and firewalls at what EC2 says
    blocks.py    loop devices                   disks.py         what a host sees of them
    metadata.py  169.254.169.254                rootfs.py        the files every host is given
    clean.py     the worst case                 address_blocks.py  networks nobody else uses
"""

from __future__ import annotations

from infra.local.hosts.namespaces.clean import clean
from infra.local.hosts.namespaces.requirements import missing

__all__ = ["clean", "missing"]
