"""`python -m cnn_data.prepare NAME`: download a data set, or find its files, and prepare it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gluon_cnn_parity import did_you_mean
from cnn_data.catalog import CATALOG, entry_for
from cnn_data.errors import DataError
from cnn_data.load import FOLDER, data_folder
from cnn_data.prepared import build, find_prepared
from cnn_data.readers.imagenette import find_archive
from cnn_data.readers.originals import find_files
from gluon_cnn_parity.cli import Parser, run_by, run_command


def prepare(name: str, data_dir: str | Path | None = None, *, progress: bool = False) -> Path:
    """Prepare a data set below `data_dir`: from the original files there, or by downloading them.

    Returns:
        The folder of the prepared data set; one that is there already is kept as it is.

    Raises:
        DataError: see `cnn_data.prepared.build`; or a name that needs no preparing.
    """
    if name.startswith(FOLDER):
        raise DataError(f"{name} needs no preparing: train on it as it is")
    entry = entry_for(name)
    folder = data_folder(data_dir)
    prepared = find_prepared(entry, folder)
    if prepared is not None:
        return prepared
    if entry.kind == "embedded":
        return build(entry, folder, [], progress=progress)
    packed = find_archive(entry, folder) if entry.kind == "imagenette" else None
    files = find_files(entry, folder) if packed is None else [packed]
    return build(entry, folder, files, progress=progress)


@run_by(run_command, prog="python -m cnn_data.prepare", errors=(DataError,))
def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 failed with one line on stderr, 2 bad usage."""
    parser = Parser(
        prog="python -m cnn_data.prepare",
        description="Download a data set and prepare it for training without TensorFlow.",
    )
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(CATALOG)}")
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        default="~/tensorflow_datasets",
        help="where it goes; original files that lie there are used instead of a download",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")
    args = parser.parse_args(argv)
    if args.name not in CATALOG:
        nearest = did_you_mean(args.name, CATALOG)
        parser.error(f"unknown dataset {args.name!r}; choose one of {', '.join(CATALOG)}{nearest}")
    began = time.perf_counter()
    path = prepare(args.name, args.data_dir, progress=sys.stderr.isatty())
    result = {"name": args.name, "path": str(path), **_counts(path)}
    result["seconds"] = round(time.perf_counter() - began, 2)
    if args.json:
        print(json.dumps(result))
    else:
        print(f"{args.name}: {result['train']} training and {result['test']} test images in {path}")
        print(f"train on it with --dataset {args.name} --data-dir {args.data_dir}")
    return 0


def _counts(path: Path) -> dict[str, Any]:
    info = json.loads((path / "dataset_info.json").read_text(encoding="utf-8"))
    counts = {each["name"]: sum(map(int, each["shardLengths"])) for each in info["splits"]}
    return {"train": counts["train"], "test": counts.get("test", counts.get("validation"))}


if __name__ == "__main__":
    sys.exit(main())
