"""Values for answers, found as moto's own code finds them, which is what they are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from moto.core.serialize import AttributePickerContext, XFormedAttributePicker
from moto.core.utils import get_service_model

from infra.local.http.serialization import RememberingPicker

TRANSFORMS = {".InstanceId": repr, "Instances.State.Name": lambda name: f"as {name}"}


class Aliased:
    """Says itself where a value is; others stand below the attribute's own name or the model's."""

    class Meta:
        serialization_aliases = {"InstanceId": "number", "State": "inner.state"}  # noqa: RUF012

    number, inner = "i-1", SimpleNamespace(state={"Name": "running", "code": 16})
    image_id, PrivateIpAddress, dnsName = "ami-1", "10.0.0.1", "host"


class Instance:
    """Attributes without the name of their class before them."""

    id, type, image_id, tags = "i-2", "g6.xlarge", "ami-2", [{"Key": "a"}]


OBJECTS: list[Any] = [Aliased(), Instance(), {"InstanceId": "i-3", "instance_type": "t", "State": None}, {}]


def places(shape: Any, path: str) -> Iterator[tuple[Any, str, str]]:
    """(shape, key, path) of every member of a structure, and of the structures in it once."""
    for key, member in shape.members.items():
        member.parent = shape
        yield member, key, path
        if member.type_name == "structure" and path.count(".") < 2:
            yield from places(member, f"{path}.{key}")


@pytest.mark.parametrize("thing", OBJECTS, ids=lambda thing: type(thing).__name__)
def test_every_value_of_an_instance_is_the_one_that_moto_finds(thing: Any) -> None:
    model = get_service_model("ec2")
    shape = model.shape_for("Instance")
    ours, theirs = (
        kind(response_transformers=TRANSFORMS) for kind in (RememberingPicker, XFormedAttributePicker)
    )
    seen = 0
    for member, key, path in [*places(shape, "Instances"), *places(shape, "Instances")]:
        context = AttributePickerContext(thing, key, member, None, model, path)
        assert ours(context) == theirs(context), f"{path}.{key}"
        seen += theirs(context) is not None
    assert seen or not thing
