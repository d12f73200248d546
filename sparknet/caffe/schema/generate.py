"""Compiles the schemas to ``*_pb2.py`` and ``*_pb2.pyi``: ``python -m sparknet.caffe.schema.generate``.

The compiler ties its output to its own version of the protobuf runtime. The descriptor itself does not depend
on it, so those lines are left out: the trainer then runs with whatever protobuf its neighbours ask for.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[2]
SCHEMAS = ("caffe.proto", "weights.proto")

_VERSION_TIES = re.compile(
    r"# NO CHECKED-IN PROTOBUF GENCODE\n|# Protobuf Python Version: .*\n"
    r"|from google\.protobuf import runtime_version as _runtime_version\n"
    r"|_runtime_version\.ValidateProtobufRuntimeVersion\((?:.*\n)*?\)\n"
)


def generate(target: Path) -> None:
    """Write the modules and their stubs under ``target``/sparknet/caffe/schema. Needs grpcio-tools.

    Raises RuntimeError if the compiler refuses a schema (it has said why on stderr).
    """
    from grpc_tools import protoc  # type: ignore[import-untyped]  # a developers' tool

    folder = FOLDER.relative_to(ROOT)
    for name in SCHEMAS:
        outputs = [f"--python_out={target}", f"--pyi_out={target}"]
        status = protoc.main(["protoc", f"-I{ROOT}", *outputs, str(folder / name)])
        if status:
            raise RuntimeError(f"protoc left with status {status} on {name}")
        module = target / folder / name.replace(".proto", "_pb2.py")
        module.write_text(_VERSION_TIES.sub("", module.read_text()))
        stub = module.with_suffix(".pyi")
        stub.write_text(stub.read_text().replace("_Mapping]", "_Mapping[str, object]]"))  # for mypy --strict


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
