"""What the site shows of the files that lie outside `docs/`, for mkdocs.

README.md is the start page. Its links are those of the repository, `docs/train.md` for one; here
they are rewritten to where each file lies in the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

__all__ = ["OUTSIDE", "on_files", "on_page_markdown", "relocate_links"]

ROOT = Path(__file__).resolve().parents[1]

# file of the repository -> file of the site
OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "LICENSE": "LICENSE.txt",
    "benchmarks/results/speed.png": "benchmarks/results/speed.png",
    "benchmarks/results/table.md": "benchmarks/results/table.md",
    "docs/parity-gate.yml": "parity-gate.yml.txt",
    "parity_tests/reporting/report.schema.json": "report.schema.json",
}
_BACK = {site: repository for repository, site in OUTSIDE.items()}
_LINK = re.compile(r"(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files outside `docs/`."""
    for repository, site in OUTSIDE.items():
        files.append(File.generated(config, site, abs_src_path=str(ROOT / repository)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of one page."""
    return relocate_links(markdown, page.file.src_uri)


def relocate_links(markdown: str, page: str) -> str:
    """Point each relative link of a page of the site to where its file lies in the site.

    >>> relocate_links("[a](docs/train.md#data) [b](CHANGELOG.md)", "index.md")
    '[a](train.md#data) [b](CHANGELOG.md)'
    >>> relocate_links("![c](../benchmarks/results/speed.png)", "speed.md")
    '![c](benchmarks/results/speed.png)'
    >>> relocate_links("[d](https://example.org/x.md)", "speed.md")
    '[d](https://example.org/x.md)'
    """
    folder = posixpath.dirname(_BACK.get(page, f"docs/{page}"))

    def relocate(match: re.Match[str]) -> str:
        opening, target, closing = match.groups()
        if "://" in target:
            return match[0]
        repository = posixpath.normpath(posixpath.join(folder, target))
        site = OUTSIDE.get(repository, repository.removeprefix("docs/"))
        return opening + posixpath.relpath(site, posixpath.dirname(page) or ".") + closing

    return _LINK.sub(relocate, markdown)
