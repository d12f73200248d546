"""The copy of the code that a healer runs: what it needs a node has, and it sets up what we would."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from infra.node import bootstrap, bundle
from infra.spec import ClusterSpec

ROOT = Path(__file__).parents[2]
ON_A_NODE = """
import re, sys
from importlib import metadata

allowed = set(sys.argv[1].split())
of_module = metadata.packages_distributions()


class OnlyNodes:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        owners = {re.sub(r"[-_.]+", "-", one).lower() for one in of_module.get(top, ())}
        if top not in ("infra", "sparknet", "apps") and owners and not owners & allowed:
            raise ModuleNotFoundError(name, name=name)


def version(name, known=metadata.version):
    if name == "sparknet-ec2":
        raise metadata.PackageNotFoundError(name)
    return known(name)


sys.meta_path.insert(0, OnlyNodes())
metadata.version = version
import infra, infra.cli.healer, infra.node.login, infra.ec2.credentials
from infra.node import bootstrap, bundle
from infra.spec import ClusterSpec

infra.ec2.credentials.session(("a", "b")).client("ec2", region_name="us-east-1").close()
infra.cli.healer.main(["public-key", sys.argv[2]])
print(infra.__file__, bundle.build().digest, bootstrap.content_hash(ClusterSpec()))
"""


def test_it_runs_with_a_nodes_packages_alone_and_has_the_same_scripts_and_trainer(tmp_path: Path) -> None:
    zipfile.ZipFile(io.BytesIO(bundle.build_healer())).extractall(tmp_path / "code")
    lock = (ROOT / "ami/requirements.lock").read_text()
    names = re.findall(r"^([\w.-]+)==", lock, flags=re.MULTILINE)
    ran = subprocess.run(
        [sys.executable, "-c", ON_A_NODE, " ".join(names), str(tmp_path)],
        env={"PYTHONPATH": str(tmp_path / "code"), "HOME": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    key, facts = ran.stdout.splitlines()
    assert key.startswith("ssh-ed25519 ")
    wanted = (str(tmp_path / "code/infra/__init__.py"), bundle.build().digest)
    assert facts.split() == [*wanted, bootstrap.content_hash(ClusterSpec())]
    assert (tmp_path / "home/key.pem").stat().st_mode & 0o777 == 0o600
