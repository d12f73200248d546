"""The seven fillers.

Exact where Caffe is exact, and with the moments of Caffe's own draws where it is random.
"""

from __future__ import annotations

import json
import math

import pytest
import torch
from google.protobuf import text_format

from sparknet.caffe.fillers import FILLERS, fill
from sparknet.caffe.schema.caffe_pb2 import FillerParameter
from sparknet.errors import ModelError
from tests.sparknet.caffe.oracle import oracle_file

CASES = json.loads(path.read_text()) if (path := oracle_file("misc/fillers.json")) else []
CONV = (48, 15, 5, 5)


def filled(text: str, shape: tuple[int, ...], seed: int = 1) -> torch.Tensor:
    blob = torch.empty(shape)
    fill(blob, text_format.Parse(text, FillerParameter()), torch.Generator().manual_seed(seed))
    return blob


def assert_like_caffe(blob: torch.Tensor, caffe: dict[str, float]) -> None:
    """The moments agree within five standard errors of the difference of two draws."""
    n, std = blob.numel(), caffe["std"]
    drawn = max(1, int((blob != 0).sum()))
    assert float(blob.mean()) == pytest.approx(caffe["mean"], abs=1e-6 + 5 * std * math.sqrt(2 / n))
    assert float(blob.std(correction=0)) == pytest.approx(std, rel=6 / math.sqrt(drawn), abs=1e-7)
    assert float((blob == 0).float().mean()) == pytest.approx(caffe["zero_fraction"], abs=0.02)


@pytest.mark.skipif(not CASES, reason="SPARKNET_ORACLE does not name a folder with misc/fillers.json")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['filler']} {case['layer']}")
def test_a_filler_has_the_moments_that_caffe_drew(case: dict) -> None:
    text = "" if case["filler"] == "(none)" else case["filler"]
    assert_like_caffe(filled(text, tuple(case["shape"])), case)


def test_every_filler_has_a_case_or_a_test_of_its_own() -> None:
    if CASES:
        drawn = {case["filler"].split('"')[1] for case in CASES if '"' in case["filler"]}
        assert drawn | {"bilinear"} == set(FILLERS)


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ('type: "xavier"', math.sqrt(3 / 375)),
        ('type: "xavier" variance_norm: FAN_OUT', math.sqrt(3 / 1200)),
        ('type: "xavier" variance_norm: AVERAGE', math.sqrt(3 / 787.5)),
        ('type: "uniform" min: -0.5 max: 0.5', 0.5),
    ],
)
def test_a_uniform_filler_reaches_its_bound_and_no_further(text: str, bound: float) -> None:
    assert 0.99 * bound < float(filled(text, CONV).abs().max()) <= bound * (1 + 1e-6)


@pytest.mark.parametrize(
    ("text", "std"),
    [
        ('type: "msra"', math.sqrt(2 / 375)),
        ('type: "msra" variance_norm: FAN_OUT', math.sqrt(2 / 1200)),
        ('type: "gaussian" mean: 3 std: 0.25', 0.25),
    ],
)
def test_a_gaussian_filler_has_its_deviation(text: str, std: float) -> None:
    assert float(filled(text, CONV).std()) == pytest.approx(std, rel=0.03)


def test_the_fan_in_of_a_transposed_blob_is_caffes() -> None:
    bound = math.sqrt(
        3 / 60
    )  # the blob is (inputs, outputs), and Caffe divides by the first axis all the same
    assert float(filled('type: "xavier"', (1920, 60)).abs().max()) == pytest.approx(bound, rel=0.01)


def test_a_sparse_gaussian_keeps_the_expected_number_of_inputs() -> None:
    blob = filled('type: "gaussian" std: 1 sparse: 15', CONV)
    assert float((blob != 0).float().mean()) == pytest.approx(15 / 48, abs=0.02)


def test_rows_of_a_positive_unitball_sum_to_one() -> None:
    blob = filled('type: "positive_unitball"', CONV)
    torch.testing.assert_close(blob.flatten(1).sum(1), torch.ones(48))
    assert float(blob.min()) >= 0


def test_a_bilinear_kernel_interpolates() -> None:
    kernel = filled('type: "bilinear"', (2, 1, 4, 4))
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    torch.testing.assert_close(kernel, torch.outer(line, line).expand(2, 1, 4, 4))


def test_an_odd_bilinear_kernel_is_one_in_its_middle() -> None:
    line = torch.tensor([1 / 3, 2 / 3, 1.0, 2 / 3, 1 / 3])
    torch.testing.assert_close(filled('type: "bilinear"', (1, 1, 5, 5))[0, 0], torch.outer(line, line))


def test_a_bilinear_filler_needs_a_square_kernel() -> None:
    with pytest.raises(ModelError, match=r"square kernel, not \(1, 1, 3, 4\)"):
        filled('type: "bilinear"', (1, 1, 3, 4))


def test_an_unknown_filler_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r'unknown filler "Xavier"; the fillers are constant, uniform'):
        filled('type: "Xavier"', (3, 3))


def test_the_same_seed_draws_the_same_values_also_into_a_strided_blob() -> None:
    text = 'type: "gaussian"'
    strided = torch.empty(4, 3).t()
    fill(strided, text_format.Parse(text, FillerParameter()), torch.Generator().manual_seed(1))
    assert torch.equal(strided, filled(text, (3, 4)))
