"""Damaged files, made by the hundred from seeds: each is read, or refused with a SparkNetError.

Memory is limited to little more than the process has, and each test to a minute: a size in a file that was
believed, or a loop without an end, would show.
"""

from __future__ import annotations

import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import h5py
import pytest
import torch

from sparknet.caffe import schema
from sparknet.caffe.files import blobs, solver_state
from sparknet.caffe.files import weights as weight_files
from sparknet.caffe.files.solver_state import SolverState
from sparknet.caffe.net import Net
from sparknet.errors import ModelError, SparkNetError

pytestmark = pytest.mark.timeout(60)

MODELS = Path(__file__).parents[3] / "apps" / "models"
SIGNS = 'abz01-{}":. #\n'
NUMBERS = ("0", "-1", "1", "3", "0.5", "1e9", "65536", "2000000000", "4294967295", "9223372036854775807")
BIG = re.compile(r"dim: (64|100)\b")
SMALL = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "fc/1" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 5 } }
"""


@pytest.fixture(autouse=True)
def _little_memory() -> Iterator[None]:
    """At most 3 GiB more of addresses than now."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = Path("/proc/self/statm")
    if pages.exists():
        taken = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + (3 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def _outcomes(cases: int, attempt: Callable[[Random], object]) -> tuple[int, int]:
    """How many of the seeds ended well and how many were refused; any other ending is raised."""
    well = 0
    for seed in range(cases):
        try:
            attempt(Random(seed))
            well += 1
        except SparkNetError:
            continue
    return well, cases - well


def _with_signs_changed(text: str, random: Random) -> str:
    for _ in range(random.choice((1, 2, 5))):
        at, what = random.randrange(len(text)), random.random()
        text = text[:at] + ("" if what < 0.4 else random.choice(SIGNS)) + text[at + (what < 0.7) :]
    return text


def _with_numbers_changed(text: str, random: Random) -> str:
    for _ in range(random.choice((1, 1, 3))):
        start, end = random.choice([found.span() for found in re.finditer(r"(?<=: )-?[\d.]+", text)])
        text = text[:start] + random.choice(NUMBERS) + text[end:]
    return text


def _with_bytes_changed(data: bytes, random: Random) -> bytes:
    if random.random() < 0.3:
        return data[: random.randrange(len(data))]
    damaged = bytearray(data)
    for _ in range(random.choice((1, 5, 50))):
        end = min(len(data), random.choice((300, 3000, len(data))))  # the beginning says what the rest is
        damaged[random.randrange(end)] = random.randrange(256)
    return bytes(damaged)


@pytest.mark.parametrize("model", ["lenet", "cifar10_quick"])
@pytest.mark.parametrize("change", [_with_signs_changed, _with_numbers_changed])
def test_a_damaged_prototxt_gives_a_net_that_runs_or_is_refused(
    model: str, change: Callable[[str, Random], str]
) -> None:
    text = BIG.sub("dim: 2", (MODELS / f"{model}_train_test.prototxt").read_text())

    def attempt(random: Random) -> None:
        net = Net(schema.parse_net(change(text, random), file=model), random.choice((0, 1)))
        if sum(blob.count for blob in net.blobs.values()) + net.layout.size < 1_000_000:
            net.forward()
            net.backward()

    well, refused = _outcomes(120, attempt)
    assert well
    assert refused


@pytest.mark.parametrize("ending", ["caffemodel", "caffemodel.h5"])
def test_a_damaged_weight_file_is_read_or_refused(ending: str, tmp_path: Path) -> None:
    net = Net(schema.parse_net(SMALL), schema.TEST)
    net.save(tmp_path / f"whole.{ending}")
    data, damaged = (tmp_path / f"whole.{ending}").read_bytes(), tmp_path / f"damaged.{ending}"

    def attempt(random: Random) -> None:
        damaged.write_bytes(_with_bytes_changed(data, random))
        net.copy_from(damaged)

    well, refused = _outcomes(300, attempt)
    assert well
    assert refused


@pytest.mark.parametrize("ending", ["solverstate", "solverstate.h5"])
def test_a_damaged_solver_state_is_read_or_refused(ending: str, tmp_path: Path) -> None:
    state = SolverState(iter=7, current_step=1, learned_net="w.caffemodel", history=(torch.ones(3, 4),) * 5)
    solver_state.write(tmp_path / f"whole.{ending}", state)
    data, damaged = (tmp_path / f"whole.{ending}").read_bytes(), tmp_path / f"damaged.{ending}"

    def attempt(random: Random) -> None:
        damaged.write_bytes(_with_bytes_changed(data, random))
        solver_state.read(damaged)

    well, refused = _outcomes(200, attempt)
    assert well
    assert refused


@pytest.mark.parametrize("filters", [{}, {"compression": "gzip"}])
def test_a_dataset_that_declares_more_than_the_file_holds_takes_no_memory(
    filters: dict[str, str], tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("data/conv/0", (1 << 20, 1 << 20), "f4", chunks=(1 << 10, 1 << 10), **filters)
    with pytest.raises(ModelError, match="/data/conv/0 declares 4,398,046,511,104 bytes, and the wh"):
        weight_files.read(tmp_path / "w.h5")


@pytest.mark.parametrize("shape", [(1 << 32, 1 << 32), (-1, -4), (0, 1 << 62, 1 << 62), (1,) * 70])
def test_a_blob_whose_shape_cannot_be_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    blob = blobs.encode_blob(torch.ones(4 if min(shape) < 0 else 1 if max(shape) == 1 else 0))
    del blob.shape.dim[:]
    blob.shape.dim.extend(shape)
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    with pytest.raises(ModelError, match="the file is damaged"):
        blobs.read_blob(tmp_path / "mean.binaryproto")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            SMALL.replace("num_output: 4", "num_output: 2000000000"),
            r"\(Convolution\): a top of shape",
        ),
        (SMALL.replace("num_output: 5", "num_output: 2000000000"), r"\(InnerProduct\): the parameters of"),
        (SMALL.replace("dim: 2", "dim: 9223372036854775807"), r"\(Input\): a top of shape .* needs .*e\+"),
    ],
)
def test_a_net_that_no_memory_holds_is_refused_before_any_is_taken(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message + r".* GiB, and there are .* GiB in all"):
        Net(schema.parse_net(text), schema.TEST)


def test_blobs_that_are_too_large_together_are_refused_before_they_are_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = Net(schema.parse_net(SMALL), schema.TEST)
    monkeypatch.setattr("sparknet.caffe.size_check.installed", lambda device: 10_000)
    net.forward({"data": torch.zeros(1, 3, 6, 6)})
    net = Net(schema.parse_net(SMALL.replace("dim: 2", "dim: 1")), schema.TEST)
    with pytest.raises(ModelError, match="take smaller batches"):
        net.forward({"data": torch.zeros(20, 3, 6, 6)})
