"""What an installation holds: every package of the tree, nothing under a common name."""

import configparser
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

from tests.trees import FOLDERS, MODULES, ROOT, copy_tree


def setup_list(key: str) -> list[str]:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options"][key].splitlines()
    return [line.strip() for line in lines if line.strip()]


def product_files() -> set[str]:
    """Every file of the tree that belongs into an installation, as it is named there."""
    files = set(MODULES)
    for folder, package in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT / folder)
            if path.is_file() and not {"tests", "__pycache__"} & set(inside.parts):
                files.add(str(PurePosixPath(package, *inside.parts)))
    return files


def test_setup_cfg_lists_every_package_of_the_tree_and_no_other() -> None:
    packages = {
        str(PurePosixPath(name).parent).replace("/", ".")
        for name in product_files()
        if name.endswith("/__init__.py")
    }
    listed = setup_list("packages")
    assert len(listed) == len(set(listed))
    assert set(listed) == packages
    assert {f"{name}.py" for name in setup_list("py_modules")} == set(MODULES)


def test_every_folder_with_code_is_a_package() -> None:
    folders = {str(PurePosixPath(n).parent) for n in product_files() if n.endswith(".py")} - {"."}
    assert {folder for folder in folders if f"{folder}/__init__.py" not in product_files()} == set()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_tree(tmp_path_factory.mktemp("built") / "tree")


def build(tree: Path, kind: str) -> Path:
    """Run the build back end's hook `build_KIND` in the tree; the file that it wrote."""
    code = f"import setuptools.build_meta as b; b.build_{kind}('dist')"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tree, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (path,) = (tree / "dist").glob("*.whl" if kind == "wheel" else "*.tar.gz")
    return path


def test_the_wheel_holds_the_product_and_nothing_else(tree: Path) -> None:
    with zipfile.ZipFile(build(tree, "wheel")) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == product_files()
    assert {PurePosixPath(name).suffix for name in names} >= {".j2", ".css", ".js", ".json"}


def test_the_sdist_holds_what_the_wheel_is_built_from(tree: Path, tmp_path: Path) -> None:
    with tarfile.open(build(tree, "sdist")) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    with zipfile.ZipFile(build(source, "wheel")) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == product_files()


def test_nothing_is_installed_under_a_common_name() -> None:
    tops = {PurePosixPath(name).parts[0].removesuffix(".py") for name in product_files()}
    assert not tops & {"data", "harness", "benchmarks", "tests", "models", "runtime"}
