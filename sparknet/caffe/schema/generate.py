"""Compiles caffe.proto to caffe_pb2.py and caffe_pb2.pyi: ``python -m sparknet.caffe.schema.generate``.

The compiler ties its output to its own version of the protobuf runtime. The descriptor itself does not depend
on it, so those lines are left out: the trainer then runs with whatever protobuf its neighbours ask for.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

SCHEMA = Path(__file__).parent / "caffe.proto"
ROOT = SCHEMA.parents[3]

_VERSION_TIES = re.compile(
    r"# NO CHECKED-IN PROTOBUF GENCODE\n|# Protobuf Python Version: .*\n"
    r"|from google\.protobuf import runtime_version as _runtime_version\n"
    r"|_runtime_version\.ValidateProtobufRuntimeVersion\((?:.*\n)*?\)\n"
)


def generate(target: Path) -> None:
    """Write ``caffe_pb2.py`` and ``.pyi`` under ``target``/sparknet/caffe/schema. Needs grpcio-tools.

    Raises RuntimeError if the compiler refuses the schema (it has said why on stderr).
    """
    from grpc_tools import protoc  # type: ignore[import-untyped]  # developers' tool: absent where nets only run

    source = SCHEMA.relative_to(ROOT)
    status = protoc.main(
        ["protoc", f"-I{ROOT}", f"--python_out={target}", f"--pyi_out={target}", str(source)]
    )
    if status:
        raise RuntimeError(f"protoc left with status {status} on {SCHEMA}")
    module = target / source.parent / "caffe_pb2.py"
    module.write_text(_VERSION_TIES.sub("", module.read_text()))


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
