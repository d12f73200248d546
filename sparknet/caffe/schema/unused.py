"""The warning for settings that are read by nobody, which Caffe ignores as well."""

from __future__ import annotations


class UnusedSetting(UserWarning):
    """A layer carries settings that its type does not read; Caffe ignores them too."""
