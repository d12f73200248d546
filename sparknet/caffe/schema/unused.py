"""The warning for settings that no layer reads, which Caffe ignores as well."""

from __future__ import annotations


class UnusedSetting(UserWarning):
    """A layer carries settings that its type does not read; Caffe ignores them too."""
