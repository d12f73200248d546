"""Files to arrays: data sets, shards of them, the order they are read in, and Caffe's transforms."""

from sparknet.data.dataset import Dataset, Examples
from sparknet.data.preprocessing import Transform
from sparknet.data.records import Column, Records
from sparknet.data.shards import Sampler, contiguous, sampler

__all__ = ["Column", "Dataset", "Examples", "Records", "Sampler", "Transform", "contiguous", "sampler"]
