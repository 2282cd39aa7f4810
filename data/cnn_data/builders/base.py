"""What the builders share: features, version, and where the original files come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from cnn_data.catalog import CATALOG, Entry

Examples = Iterator[tuple[str, dict[str, Any]]]


class ImageBuilder(tfds.core.GeneratorBasedBuilder):
    """A builder of a data set in the catalogue, without TensorFlow.

    It differs from TFDS's own in three ways: the original files are read with numpy, gzip and
    tarfile; examples are `PIL.Image` or encoded bytes, which TFDS can write alone; their order is
    kept. It is not registered, since TFDS has builders of the same names.

    Args:
        originals: the original files, if they are at hand; else they are downloaded and their
            SHA-256 is compared with the catalogue's.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**{"skip_registration": True, **options})

    def __init__(self, *, originals: Sequence[Path] | None = None, **options: Any) -> None:
        self._originals = originals
        super().__init__(**options)

    @property
    def entry(self) -> Entry:
        return CATALOG[self.name]

    @property
    def url_infos(self) -> dict[str, Any]:
        """What TFDS checks downloads against, here from the catalogue."""
        return {
            file.url: tfds.core.download.checksums.UrlInfo(
                size=tfds.core.utils.Size(file.size), checksum=file.sha256, filename=file.name
            )
            for file in self.entry.originals
        }

    def _info(self) -> Any:
        shape = self.entry.shape or (None, None, 3)
        features = {
            "image": tfds.features.Image(
                shape=shape, encoding_format="png" if self.entry.shape else "jpeg"
            ),
            "label": tfds.features.ClassLabel(names=list(self.entry.class_names)),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.entry.name}, prepared without TensorFlow",
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Examples]:
        files = self._originals
        if files is None:
            downloaded = dl_manager.download([file.url for file in self.entry.originals])
            files = [Path(path) for path in downloaded]
        return self._splits(files)

    def _splits(self, files: Sequence[Path]) -> dict[str, Examples]:
        """The examples of train and of test, from the original files."""
        raise NotImplementedError
