"""Records that lie anywhere, in files of any kind: ``open_source`` finds out which, and gives one interface.

>>> from sparknet.sources import open_source
>>> source = open_source("s3://bucket/photos", size=224)     # doctest: +SKIP
>>> source.name                                              # doctest: +SKIP
'2,000 pictures in 10 classes from the folder s3://bucket/photos'
"""

from sparknet.sources.opening import KINDS, open_source
from sparknet.sources.source import Block, Part, Source

__all__ = ["KINDS", "Block", "Part", "Source", "open_source"]
