"""SavedImages: what is on the root disk of a machine, kept for hosts that start from it.

``Machine.save`` writes what is on a machine's root disk to the folder of the image, and a machine whose facts
name that folder begins with a copy of it.
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_CreateImage.html
"""

from __future__ import annotations

import shutil
from pathlib import Path


class SavedImages:
    """A folder an image; images that AWS publishes have none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, image_id: str) -> Path | None:
        folder = self._folder / image_id
        return folder if folder.is_dir() else None

    def place_for(self, image_id: str) -> Path:
        folder = self._folder / image_id
        folder.mkdir(parents=True)
        return folder

    def copy(self, source_id: str, image_id: str) -> None:
        source = self.of(source_id)
        if source is not None:
            shutil.copytree(source, self._folder / image_id, symlinks=True)

    def remove(self, image_id: str) -> None:
        shutil.rmtree(self._folder / image_id, ignore_errors=True)
