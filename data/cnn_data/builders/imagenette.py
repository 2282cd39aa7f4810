"""Imagenette: the 320-pixel release, its JPEG files written as they are."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from cnn_data.builders.base import Examples, ImageBuilder
from cnn_data.readers.imagenette import read_archive


class Imagenette(ImageBuilder):
    def _splits(self, files: Sequence[Path]) -> dict[str, Examples]:
        return {split: self._generate_examples(files[0], split) for split in ("train", "test")}

    def _generate_examples(self, archive: Path, split: str) -> Examples:
        for name, label, content in read_archive(self.entry, archive, split):
            yield name, {"image": io.BytesIO(content), "label": label, "file_name": name}
