"""What README, docs and site promise of themselves: links, words, the picture of the packages."""

import ast
import configparser
import contextlib
import doctest
import importlib
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from gluon_cnn_parity import SCRIPTS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
_LINK = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")


def load(path: str) -> ModuleType:
    """A module of docs/, which is no package."""
    name = f"docs_{Path(path).stem}"
    spec = importlib.util.spec_from_file_location(name, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_of_the_repository(page: Path) -> None:
    targets = [m[1] for m in _LINK.finditer(page.read_text(encoding="utf-8"))]
    inside = [target for target in targets if "://" not in target]
    assert [target for target in inside if not (page.parent / target).exists()] == []


def test_every_page_is_in_the_navigation() -> None:
    shown = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE))
    assert {path.name for path in ROOT.glob("docs/*.md")} <= shown


def test_every_extra_is_in_the_readme() -> None:
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    _, _, table = readme.partition("| extra |")
    assert [name for name in setup["options.extras_require"] if f"`{name}`" not in table] == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_is_on_the_page_of_commands(
    script: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"{SCRIPTS[script]}.__main__")
    with contextlib.suppress(SystemExit):
        module.main(["--help"])
    _, _, listed = capsys.readouterr().out.partition("commands:\n")
    text = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    _, _, section = text.partition(f"## {script}\n")
    names = re.findall(r"^\| `(\w+)` \| \S", section.partition("\n## ")[0], re.MULTILINE)
    assert names == re.findall(r"^  (\w+) +\S", listed, re.MULTILINE)


def test_the_glossary_has_each_term_once_in_order() -> None:
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^\*\*(.+)\*\*\n:   \S", text, re.MULTILINE)
    assert terms == sorted(set(terms), key=str.lower)
    needed = {
        "operation", "leaf", "referee", "envelope", "u·s", "local", "inherited", "pair", "twin",
        "snapshot", "kill matrix",
    }  # fmt: skip
    assert needed <= set(terms)


@pytest.fixture(scope="module")
def house() -> ModuleType:
    return load("docs/house.py")


@pytest.fixture(scope="module")
def arrows(house: ModuleType) -> dict[str, set[str]]:
    """Which package imports which."""
    found: dict[str, set[str]] = house.imports_of_rooms()
    return found


def test_the_picture_of_the_packages_is_drawn_from_the_source(
    house: ModuleType, arrows: dict[str, set[str]]
) -> None:
    drawn = house.PICTURE.read_text(encoding="utf-8")
    assert drawn == house.draw(arrows), "run: python docs/house.py"


def test_every_installed_package_is_in_the_picture(house: ModuleType) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    options = setup["options"]
    names = (options["packages"] + options["py_modules"]).split()
    assert {name.partition(".")[0] for name in names} == (
        {*house.ROOMS, *house.NOT_DRAWN} - {"benchmarks"}
    )


def test_a_circle_of_packages_is_not_drawn(house: ModuleType, arrows: dict[str, set[str]]) -> None:
    with pytest.raises(ValueError, match="circle"):
        house.draw({**arrows, "cnn_data": {"gluon_cnn"}})


def test_links_of_the_site_are_relocated() -> None:
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    hooks = load("docs/site_hooks.py")
    assert doctest.testmod(hooks) == doctest.TestResults(failed=0, attempted=3)
    assert [path for path in hooks.OUTSIDE if not (ROOT / path).exists()] == []


def recipes() -> dict[str, str]:
    """The recipes of design.md, by what they add."""
    text = (ROOT / "docs/design.md").read_text(encoding="utf-8")
    parts = re.split(r"^### … (.+)$", text.partition("## Where do I add …")[2], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def names_of(recipe: str) -> list[tuple[str, list[str]]]:
    """Each path that a recipe names, with the names that follow it up to the next path."""
    found: list[tuple[str, list[str]]] = []
    for span in re.findall(r"`([^`\n]+)`", recipe):
        if "/" in span and " " not in span:
            found.append((span, []))
        elif found and re.fullmatch(r"[A-Za-z_]\w*", span):
            found[-1][1].append(span)
    return found


def lacks(path: str, names: list[str]) -> list[str]:
    """The names that a file of the repository does not define, or the path of no file."""
    if not (ROOT / path).exists():
        return [path]
    if not path.endswith(".py"):
        return []
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    defined = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    defined |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    return [name for name in names if name not in defined]


def test_there_are_five_recipes() -> None:
    assert list(recipes()) == ["a model", "a layer", "an operator", "a tolerance", "a fault"]


@pytest.mark.parametrize("name", recipes())
def test_what_a_recipe_names_is_there(name: str) -> None:
    named = names_of(recipes()[name])
    assert len(named) > 1
    assert [missing for path, names in named for missing in lacks(path, names)] == []


def test_a_recipe_that_is_out_of_date_is_seen() -> None:
    assert names_of("1. `a/b.py`, `C` and `d` in `e/`") == [("a/b.py", ["C", "d"]), ("e/", [])]
    assert lacks("gluon_cnn/models/no_such.py", []) == ["gluon_cnn/models/no_such.py"]
    imported = "ClassicCNN"
    assert lacks("gluon_cnn/models/vgg.py", ["vgg", "no_such", imported]) == ["no_such", imported]


def test_the_readme_begins_each_recipe_where_design_does() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("| to add |")[2]
    for name, recipe in recipes().items():
        (row,) = re.findall(rf"^\| {name} \| (.+) \|$", table, re.MULTILINE)
        paths = re.findall(r"`([^`]+/[^`]*)`", row)
        assert paths
        assert [path for path in paths if f"`{path}`" not in recipe] == []
