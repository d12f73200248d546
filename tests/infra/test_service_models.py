"""botocore's files are read once for all sessions of a process."""

from __future__ import annotations

import botocore.session
import pytest
from botocore.loaders import Loader

from infra import service_models


def test_sessions_share_what_they_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loader, "FILE_LOADER_CLASS", Loader.FILE_LOADER_CLASS)
    service_models.install()
    endpoints = [_loader().load_data("endpoints") for _ in range(2)]
    assert endpoints[0] is endpoints[1]
    assert _loader().load_service_model("ec2", "service-2")["metadata"]["serviceId"] == "EC2"
    assert _loader().load_service_model("sts", "service-2")["metadata"]["serviceId"] == "STS"


def _loader() -> Loader:
    loader = botocore.session.Session().get_component("data_loader")
    assert isinstance(loader, Loader)
    return loader
