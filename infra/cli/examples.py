"""An example of each verb, which stands at the end of its ``--help``; some have theirs in the text."""

from __future__ import annotations

EXAMPLES = {
    "launch": "sparknet-ec2 launch research -s 5 --cloud aws --idle-minutes 30 --heal",
    "plan": "sparknet-ec2 plan -s 5 --cloud aws --instance-type g6.xlarge,g5.xlarge",
    "status": "sparknet-ec2 status research --watch",
    "destroy": "sparknet-ec2 destroy research --yes",
    "stop": "sparknet-ec2 stop research",
    "start": "sparknet-ec2 start research",
    "add-slaves": "sparknet-ec2 add-slaves research --num-slaves 2",
    "remove-slaves": "sparknet-ec2 remove-slaves research --num-slaves 2 --yes",
    "repair": "sparknet-ec2 repair research",
    "extend": "sparknet-ec2 extend research --hours 4",
    "heal": "sparknet-ec2 heal on research --fallback on-demand",
    "resubmit": "sparknet-ec2 resubmit CifarApp --name research",
    "jobs": "sparknet-ec2 jobs --name research --json",
    "logs": "sparknet-ec2 logs CifarApp -f",
    "results": "sparknet-ec2 results CifarApp --output output/cifar",
    "cancel": "sparknet-ec2 cancel CifarApp",
    "login": "sparknet-ec2 login research",
    "run-command": "sparknet-ec2 run-command 'df -h' --name research",
    "copy-file": "sparknet-ec2 copy-file . /tmp/project --name research",
    "cost": "sparknet-ec2 cost research",
    "doctor": "sparknet-ec2 doctor --cloud aws",
    "authorize": "sparknet-ec2 authorize research",
    "gc": "sparknet-ec2 gc --cloud aws --all-regions",
    "configure": "sparknet-ec2 configure",
    "iam-policy": "sparknet-ec2 iam-policy healer",
    "image": "sparknet-ec2 image build --cloud aws",
    "local": "sparknet-ec2 local status",
}


def epilog(verb: str) -> str | None:
    """What ``--help`` ends with; None for a verb whose text has an example."""
    return f"\b\nExample:\n  {EXAMPLES[verb]}" if verb in EXAMPLES else None
