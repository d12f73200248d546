#!/bin/bash
# moto: LaunchTime of an instance that was stopped and started again stays that of its first launch.
#
# EC2 documents it as the time at which the instance was last launched, and each start sets it anew; what reckons
# costs or ages from LaunchTime and is tested on moto counts the hours in which an instance was stopped, and on EC2
# forgets those before its last start.
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Instance.html (launchTime)
# Nothing is contacted outside of this machine.
# With moto 5.2.5 and boto3 1.44.5 (Python 3.11), output:
#   launched: T, started again two seconds later: T
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "moto[ec2]==5.2.5" boto3==1.44.5
cat >"$folder/program.py" <<'PYTHON'
import os
import sys
import time

os.environ.update(AWS_ACCESS_KEY_ID="id", AWS_SECRET_ACCESS_KEY="key", AWS_DEFAULT_REGION="us-east-1")
import boto3
from moto import mock_aws


def launch_time(ec2, identity):
    return ec2.describe_instances(InstanceIds=[identity])["Reservations"][0]["Instances"][0]["LaunchTime"]


with mock_aws():
    ec2 = boto3.client("ec2")
    image = ec2.describe_images()["Images"][0]["ImageId"]
    (made,) = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1)["Instances"]
    identity = made["InstanceId"]
    first = launch_time(ec2, identity)
    ec2.stop_instances(InstanceIds=[identity])
    time.sleep(2)
    ec2.start_instances(InstanceIds=[identity])
    again = launch_time(ec2, identity)

print(f"launched: T, started again two seconds later: {'T' if again == first else f'T + {again - first}'}")
sys.exit(again != first)
PYTHON
"$folder/venv/bin/python" "$folder/program.py"
