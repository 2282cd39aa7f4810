"""What a run says of itself in its files: its data, its pixels, and what computed it."""

from __future__ import annotations

import hashlib
import json
import platform
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import cnn_data
from gluon_cnn_parity import did_you_mean, version_of
from cnn_data import FOLDER, DataError, Dataset, absolute_name
from cnn_harness.config import TrainConfig
from cnn_harness.errors import CommandError, UsageError
from cnn_harness.framework import Framework
from cnn_harness.initial import Pretrained, some
from cnn_harness.sealed import read_json

RUN_FORMAT = 1
FIELDS = frozenset(
    {
        "format", "framework", "config", "data_dir", "skip_damaged", "skipped", "input_shape",
        "class_names", "mean", "std", "images", "versions", "pretrained",
    }
)  # fmt: skip
IMAGES = frozenset({"train", "test", "labels_sha256", "content_sha256"})


def absolute_dataset(name: str) -> str:
    """A dataset's name that means the same from every directory. Raises: UsageError."""
    try:
        return absolute_name(name)
    except DataError as error:
        raise UsageError(f"--dataset {error}") from error


def find_dataset(recorded: str, asked: str | None, content: str | None) -> str:
    """The name of a run's dataset from this directory, wherever its folder is now.

    `recorded` is what the run calls it and `asked` what `--dataset` says, if anything. With a run's
    `content`, the hash of its images, another folder may be asked for: `require_same_images` holds
    it against the run. Raises: UsageError for a folder that is not there any more, or no folder.
    """
    known = absolute_dataset(recorded)
    name = known if asked is None else absolute_dataset(asked)
    both = name.startswith(FOLDER) and known.startswith(FOLDER)
    if asked is None and both and not Path(known.removeprefix(FOLDER)).is_dir():
        raise UsageError(
            f"{known}, which the run was trained on, is not there: say where its images are now "
            "with --dataset folder:PATH"
        )
    if both and name != known and content is None:
        raise UsageError(
            f"{name} cannot be told from other data: the run has no hash of its images, since an "
            f"older version wrote it; it was trained on {recorded}"
        )
    return name


def load_data(
    config: TrainConfig,
    data_dir: str | None,
    input_shape: tuple[int, int, int],
    *,
    skip_damaged: bool = False,
) -> Dataset:
    """The configured dataset, for a model that takes images of `input_shape` (C, H, W)."""
    return load_for_net(
        config.dataset, data_dir, config.image_size, config.fit,
        side=input_shape[1], skip_damaged=skip_damaged,
    )  # fmt: skip


def load_for_net(
    name: str,
    data_dir: str | None,
    image_size: int | None,
    fit: str,
    *,
    side: int,
    skip_damaged: bool = False,
) -> Dataset:
    """A dataset by name; photographs of any size come with the net's own `side`, unless told."""
    if image_size is None and (name.startswith(FOLDER) or name == "imagenette"):
        image_size = side
    return cnn_data.load_dataset(
        name, data_dir, image_size=image_size, fit=fit, skip_damaged=skip_damaged
    )


def describe_run(
    framework: Framework,
    config: TrainConfig,
    dataset: Dataset,
    data_dir: str | None,
    *,
    skip_damaged: bool = False,
) -> dict[str, Any]:
    """What `config.json` holds: all that evaluating, predicting and resuming need."""
    height, width, channels = dataset.shape
    return {
        "format": RUN_FORMAT,
        "framework": framework.name,
        "config": config.to_dict(),
        "data_dir": None if data_dir is None else str(Path(data_dir).absolute()),
        "skip_damaged": skip_damaged,
        "skipped": list(dataset.skipped),
        "input_shape": [channels, height, width],
        "class_names": list(dataset.class_names),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "images": {
            "train": len(dataset.train),
            "test": len(dataset.test),
            "labels_sha256": _labels_sum(dataset),
            "content_sha256": dataset.content,
        },
        "versions": framework.environment(),
    }


def _labels_sum(dataset: Dataset) -> str:
    """A sum that changes when images are added, removed or moved to another class."""
    total = hashlib.sha256()
    for split in (dataset.train, dataset.test):
        total.update(np.ascontiguousarray(split.labels, "<i4").tobytes())
    return total.hexdigest()


def read_run(path: Path) -> dict[str, Any]:
    """`config.json` of a run, checked, with `config` as a `TrainConfig`.

    Raises: CommandError naming the file and what is wrong with it.
    """
    origin = path / "config.json"
    run = read_json(origin)
    if not isinstance(run, dict) or run.get("format") != RUN_FORMAT:
        raise CommandError(f"{origin} is not the configuration of a run (format {RUN_FORMAT})")
    _require_fields(run, origin)
    if unknown := sorted(set(run) - FIELDS):
        raise CommandError(
            f"{origin}: {some(unknown)} is no field of a run's configuration"
            f"{did_you_mean(unknown[0], FIELDS)}; take it out"
        )
    pretrained = run.get("pretrained")
    if pretrained is not None:
        pretrained = Pretrained.from_dict(pretrained, origin)
    config = TrainConfig.from_dict(run.get("config"), origin)
    return {**run, "config": config, "pretrained": pretrained}


def _require_fields(run: dict[str, Any], origin: Path) -> None:
    """Raise CommandError naming the first field that no run has written so, and what it holds.

    Fields that came later, and are missing, get what an older run had.
    """
    shape: Any = run.get("input_shape")
    images = run.setdefault("images", None)
    run.setdefault("skip_damaged", False)
    sizes = isinstance(shape, list) and len(shape) == 3
    sizes = sizes and all(type(n) is int and 0 < n <= 4096 for n in shape)
    names: Any = run.get("class_names")
    named = _are_texts(names) and 0 < len(names) <= 100_000
    twice = [name for name, count in Counter(names).items() if count > 1] if named else []
    channels = shape[0] if sizes else 0
    for field, good, expected in (
        ("framework", run.get("framework") in ("gluon", "torch"), '"gluon" or "torch"'),
        ("data_dir", isinstance(run.get("data_dir"), str | None), "a folder or null"),
        ("skip_damaged", isinstance(run["skip_damaged"], bool), "true or false"),
        ("skipped", _are_texts(run.get("skipped", [])), "a list of files"),
        ("versions", isinstance(run.get("versions", {}), dict), "an object"),
        ("images", isinstance(images, dict | None), "an object"),
        ("input_shape", sizes, "three whole numbers from 1 to 4096"),
        ("class_names", named, "1 to 100,000 names"),
        *(
            (name, _are_shares(run.get(name), channels, least), f"{channels} numbers {which} to 1")
            for name, least, which in (("mean", 0, "from 0"), ("std", 1e-6, "from 1e-6"))
        ),
    ):
        if not good:
            raise CommandError(f"{origin}: {field} is {_held(run, field)}, expected {expected}")
    if twice:
        raise CommandError(f"{origin}: class_names has {some(twice)} twice, expected each once")
    if images is None:
        run["images"] = {"content_sha256": None}
        return
    images.setdefault("content_sha256", None)
    for field, good, expected in (
        *((part, type(images.get(part)) is int and images[part] > 0, "a whole number above 0")
          for part in ("train", "test")),
        ("labels_sha256", _is_sum(images.get("labels_sha256")), "64 digits from 0 to f"),
        ("content_sha256", images["content_sha256"] is None or _is_sum(images["content_sha256"]),
         "64 digits from 0 to f, or null"),
        *((other, False, "no such field") for other in sorted(set(images) - IMAGES)),
    ):  # fmt: skip
        if not good:
            held = _held(images, field)
            raise CommandError(f"{origin}: images: {field} is {held}, expected {expected}")


def require_model(folder: Path, config: TrainConfig, models: Collection[str]) -> None:
    """Raise CommandError where a run is of a model that this version has not."""
    if config.model not in models:
        raise CommandError(
            f"{folder / 'config.json'}: model is {config.model!r}, expected one of "
            f"{', '.join(models)}{did_you_mean(config.model, models)}"
        )


def _held(run: Mapping[str, Any], field: str) -> str:
    """What a field holds, in so many characters as a line can take."""
    if field not in run:
        return "missing"
    text = json.dumps(run[field])
    return text if len(text) <= 60 else text[:57] + "..."


def settings_of(source: str) -> dict[str, Any]:
    """The model whose weights `--init-from` names, and how a run's model saw images.

    Empty where neither a run nor an export says so. Raises: CommandError for damaged files.
    """
    path = Path(source)
    folder = path if path.is_dir() else path.parent
    if (folder / "config.json").is_file():
        config = read_run(folder)["config"]
        return {name: getattr(config, name) for name in ("model", "image_size", "fit", "normalise")}
    found = sorted(folder.glob("*-0000.params")) if path.is_dir() else [path]
    manifest = found[0].with_name(found[0].name.replace("-0000.params", ".json")) if found else path
    if manifest.suffix != ".json" or not manifest.is_file():
        return {}
    values = read_json(manifest)
    model = values.get("model") if isinstance(values, dict) else None
    return {"model": model} if isinstance(model, str) else {}


def _are_shares(values: object, channels: int, least: float) -> bool:
    """Whether these can be statistics of pixels from 0 to 1; pixels are divided by their std."""
    return (
        isinstance(values, list)
        and len(values) == channels
        and all(type(v) in (int, float) and least <= v <= 1 for v in values)
    )


def _are_texts(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(each, str) for each in values)


def _is_sum(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def require_same_images(run: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise UsageError naming the field in which the data are not those that the run began with."""
    for field in ("input_shape", "class_names", "images", "content", "mean", "std"):
        was, here = (_field(each, field) for each in (run, now))
        if field == "content" and other_content(was, here):
            raise UsageError(
                f"--resume cannot change the data: {now['config']['dataset']} holds other images "
                f"than the run began with (sha256 {here[:12]}…, the run has {was[:12]}…)"
            )
        if field != "content" and was != here:
            was, here = _shown(field, was), _shown(field, here)
            raise UsageError(
                f"--resume cannot change the data: {field} is {here}, the run has {was}"
            )


def other_content(was: str | None, now: str | None) -> bool:
    """Whether two hashes of images are of different ones; None is not known."""
    return None not in (was, now) and was != now


def _field(run: Mapping[str, Any], field: str) -> Any:
    """A field of a run's data; the hash, which older runs do not have, is one of its own."""
    if field == "content":
        return run["images"]["content_sha256"]
    if field == "images":
        return {name: each for name, each in run[field].items() if name != "content_sha256"}
    return run[field]


def _shown(field: str, value: Any) -> str:
    if field == "class_names" and isinstance(value, list):
        return f"{len(value)} classes ({some(value)})"
    return json.dumps(value)


def versions(packages: Iterable[str], threads: int) -> dict[str, Any]:
    """The versions of Python and the packages (None where one is absent), and the thread count."""
    return {
        "python": platform.python_version(),
        **{name: version_of(name) for name in packages},
        "threads": threads,
    }


def difference(saved: object, now: Mapping[str, Any]) -> str | None:
    """One line on what a checkpoint was written with that is not here now; None if nothing.

    >>> difference({"mxnet": "1.8.0", "threads": 2}, {"mxnet": "1.9.1", "threads": 2})
    'written with mxnet 1.8.0, this is mxnet 1.9.1: the bits may differ from an unstopped run'
    """
    before = saved if isinstance(saved, Mapping) else {}
    differing = [name for name in now if before.get(name) != now[name]]
    if not differing:
        return None
    was = ", ".join(f"{name} {before.get(name, 'unknown')}" for name in differing)
    here = ", ".join(f"{name} {now[name]}" for name in differing)
    return f"written with {was}, this is {here}: the bits may differ from an unstopped run"
