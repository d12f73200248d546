"""What is changed in moto, as a list: a new moto, or a new patch, must be looked at here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from infra.errors import SetupError
from infra.local.calls.patches import Registry

ROOT = Path(__file__).parents[4]

PROGRAM = """
import json, pathlib, sys, tempfile
from infra.local import server
server.prepare_moto(pathlib.Path(tempfile.mkdtemp()))
import infra.local.simulation
from infra.local.calls.patches import patch
print(json.dumps(sorted(str(one).partition(":")[0] for one in patch.patches)))
"""

EXPECTED = """
adds EC2Response.create_placement_group
adds EC2Response.delete_placement_group
adds EC2Response.describe_placement_groups
adds EC2Response.get_spot_placement_scores
adds IamResponse.simulate_principal_policy
adds ServiceQuotasResponse.get_aws_default_service_quota
adds ServiceQuotasResponse.list_service_quotas
adds ServiceQuotasResponse.request_service_quota_increase
replaces AmiBackend.create_image
replaces AmiBackend.deregister_image
replaces AmiBackend.describe_images
replaces AmisResponse.copy_image
replaces EBSBackend.attach_volume
replaces EBSBackend.delete_volume
replaces EBSBackend.detach_volume
replaces EC2Backend.create_default_vpc
replaces ElasticBlockStore.create_volume
replaces ElasticBlockStore.detach_volume
replaces ElasticBlockStore.modify_volume
replaces Fleets.create_fleet
replaces Fleets.delete_fleets
replaces General.get_console_output
replaces EC2Backend.do_resources_exist
replaces Instance.reboot
replaces Instance.start
replaces Instance.stop
replaces Instance.terminate
replaces InstanceBackend.get_instance
replaces InstanceResponse.modify_instance_attribute
replaces InstanceResponse.run_instances
replaces ElasticBlockStore.describe_volumes
replaces KeyPairBackend.create_key_pair
replaces KeyPairBackend.import_key_pair
replaces LaunchTemplates.create_launch_template
replaces LaunchTemplates.create_launch_template_version
replaces LaunchTemplates.delete_launch_template
replaces ParameterDict._check_loading_status
replaces SecurityGroupBackend.delete_security_group
replaces ServiceQuotasBackend.get_service_quota
replaces ServiceQuotasBackend.list_aws_default_service_quotas
replaces SpotInstances.cancel_spot_instance_requests
replaces SpotInstances.describe_spot_instance_requests
replaces SpotInstances.describe_spot_price_history
replaces SpotInstances.request_spot_instances
replaces TaggedEC2Resource.get_tags
replaces Volume.__init__
replaces moto.ec2.models.elastic_ip_addresses.random_ip
replaces moto.ec2.models.elastic_network_interfaces.random_public_ip
"""


def test_the_list_of_patches_is_known() -> None:
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    )
    assert set(EXPECTED.split("\n")[1:-1]) <= set(json.loads(said.stdout))


class Model:
    def is_there(self) -> str:
        return "moto's"


def test_a_patch_knows_the_function_it_replaces() -> None:
    registry = Registry()

    class Copy(Model):
        pass

    @registry(Copy, "is_there", why="test")
    def is_there(cloud: object, original: object, model: object) -> str:
        assert callable(original)
        return f"ours over {original(model)}"

    registry.install(object())  # type: ignore[arg-type]
    assert Copy().is_there() == "ours over moto's"
    assert Model().is_there() == "moto's"


@pytest.mark.parametrize(("name", "is_new"), [("is_gone", False), ("is_there", True)])
def test_a_moto_that_changed_is_refused(name: str, is_new: bool) -> None:
    registry = Registry()
    register = registry.add if is_new else registry
    register(Model, name, why="test")(lambda cloud, original, model: None)
    with pytest.raises(SetupError, match=name):
        registry.install(object())  # type: ignore[arg-type]
