#!/bin/bash
# moto: list_instance_profiles lists those of every path, whatever PathPrefix says; list_roles heeds it.
#
# IAM returns the profiles whose path begins with PathPrefix. A program that keeps what it made under a path of its
# own, and removes what is listed there, passes its tests on moto only if it looks at each path again: without that
# it takes the profiles of everybody else for its own there, though not in IAM.
# https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListInstanceProfiles.html
# Nothing is contacted outside of this machine.
# With moto 5.2.5 and boto3 1.44.5 (Python 3.11), output:
#   profiles under /mine/: ['mine', 'theirs']
#   roles under /mine/: ['mine']
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check "moto[iam]==5.2.5" boto3==1.44.5
cat >"$folder/program.py" <<'PYTHON'
import os
import sys

os.environ.update(AWS_ACCESS_KEY_ID="id", AWS_SECRET_ACCESS_KEY="key", AWS_DEFAULT_REGION="us-east-1")
import boto3
from moto import mock_aws

with mock_aws():
    iam = boto3.client("iam")
    for name in ("mine", "theirs"):
        iam.create_role(RoleName=name, Path=f"/{name}/", AssumeRolePolicyDocument="{}")
        iam.create_instance_profile(InstanceProfileName=name, Path=f"/{name}/")
    listed = iam.list_instance_profiles(PathPrefix="/mine/")["InstanceProfiles"]
    profiles = sorted(one["InstanceProfileName"] for one in listed)
    roles = sorted(one["RoleName"] for one in iam.list_roles(PathPrefix="/mine/")["Roles"])

print(f"profiles under /mine/: {profiles}")
print(f"roles under /mine/: {roles}")
sys.exit(profiles != ["mine", "theirs"] or roles != ["mine"])
PYTHON
"$folder/venv/bin/python" "$folder/program.py"
