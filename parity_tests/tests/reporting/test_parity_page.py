"""The report's page in a real Chromium: it renders, sorts, shows a divergence at once, stays dark.

Needs the Debian packages chromium and chromium-driver; skips where they are not installed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import mxnet as mx
import numpy as np
import pytest
import torch
from mxnet.gluon import nn as gluon_nn
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from torch import nn

from parity_tests import check_parity
from parity_tests.cases.pairs import project_case
from parity_tests.gate.agreement import Accord, PairAgreement
from parity_tests.gate.change import Change, ChangedQuantity
from parity_tests.gate.page import page as gate_page
from parity_tests.gate.verdict import NOW, Agreement, Comparison, PairChange, SideVerdict
from parity_tests.reporting.html import page
from parity_tests.reporting.report import Report
from parity_tests.reporting.rows import ALLOWED, Row
from parity_tests.reporting.verdicts import Check, Level, Side, Status
from parity_tests.tests.faults.test_parity_kills import OUTCOMES

WIDTH, HEIGHT = 1280, 800
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
LEVELS = ("structure", "weights", "forward", "backward")
Browser = webdriver.Chrome


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("needs Chromium: apt-get install chromium chromium-driver")
    options = Options()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=Service(driver))
    yield made
    made.quit()


Show = Callable[..., Browser]


@pytest.fixture
def show(browser: Browser, tmp_path: Path) -> Show:
    """Opens a page at 1280×800, or narrower, in a light or a dark scheme."""

    def open_page(html: str, scheme: str = "light", width: int = WIDTH) -> Browser:
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": HEIGHT, "deviceScaleFactor": 1, "mobile": width < WIDTH},
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        path = tmp_path / "report.html"
        path.write_text(html, encoding="utf-8")
        browser.get_log("browser")  # forgets what other pages said
        browser.get(path.as_uri())
        return browser

    return open_page


@pytest.fixture(scope="module")
def clean() -> Report:
    case = project_case("lenet")
    return check_parity(case.gluon_net, case.torch_net, case.inputs, case.labels, LEVELS)


@pytest.fixture(scope="module")
def diverged() -> Report:
    case = project_case("vgg11")
    with torch.no_grad():
        case.torch_net.get_parameter("features.8.weight")[3, 2, 1, 1] += 0.001
    return check_parity(case.gluon_net, case.torch_net, case.inputs, case.labels, LEVELS)


@pytest.fixture(scope="module")
def deep() -> Report:
    """200 layers, of which one in float32 goes through float16, far to the right."""
    units = 12
    ours, layers = gluon_nn.HybridSequential(), []
    for _ in range(100):
        ours.add(gluon_nn.Dense(units, in_units=units), gluon_nn.Activation("relu"))
        layers += [nn.Linear(units, units), nn.ReLU()]
    mx.random.seed(3)
    ours.initialize(mx.init.Xavier(magnitude=6))
    layers[181].__class__ = _Half
    x = np.random.default_rng(0).standard_normal((4, units)).astype(np.float32)
    theirs = nn.Sequential(*layers)
    return check_parity(ours, theirs, x, None, LEVELS[:3], transfer=True, name="deep")


class _Half(nn.ReLU):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        y = super().forward(input)
        return y.half().float() if y.dtype == torch.float32 else y


def complaints(browser: Browser) -> list[str]:
    """What the console holds, and what the page asked a network for."""
    asked = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    return [entry["message"] for entry in browser.get_log("browser")] + asked


def in_view(browser: Browser, selector: str) -> bool:
    """Whether all of the first such element is on the screen, unscrolled and unhidden."""
    element = browser.find_element(By.CSS_SELECTOR, selector)
    box = element.rect
    inside = box["y"] + box["height"] <= HEIGHT and box["x"] + box["width"] <= WIDTH
    unscrolled = browser.execute_script("return scrollX === 0 && scrollY === 0")
    return element.is_displayed() and inside and unscrolled


def column(browser: Browser, table: str, number: int) -> list[str]:
    """The numbers of a column as they stand, or its text where it has none."""
    script = """return [...document.querySelector(arguments[0]).tBodies[0].rows].map(
        row => row.cells[arguments[1]].dataset.v ?? row.cells[arguments[1]].textContent.trim())"""
    return browser.execute_script(script, table, number)


def press(browser: Browser, table: str, number: int, key: str = "") -> str | None:
    """Press the head of a column, with the mouse or a key; what it then says of its order."""
    head = browser.find_elements(By.CSS_SELECTOR, f"{table} thead th")[number]
    button = head.find_element(By.TAG_NAME, "button")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    if key:
        button.send_keys(key)
    else:
        button.click()
    return head.get_attribute("aria-sort")


def test_pages_render_without_a_word_in_the_console(
    show: Show, clean: Report, diverged: Report, deep: Report
) -> None:
    for reports in ([clean], [diverged], [deep], [clean, diverged, deep]):
        browser = show(page(reports, OUTCOMES))
        assert not complaints(browser)
        assert browser.find_element(By.ID, "verdict").is_displayed()
        assert len(browser.find_elements(By.TAG_NAME, "svg")) >= 2


def test_a_script_that_fails_is_seen(show: Show, clean: Report) -> None:
    whole = page([clean])
    broken = whole.replace("script-src &#39;sha256-", "script-src &#39;sha256-A")
    assert broken != whole
    assert complaints(show(broken))


def test_a_divergence_is_visible_without_scrolling(show: Show, diverged: Report) -> None:
    browser = show(page([diverged]))
    verdict = browser.find_element(By.ID, "verdict").text
    assert verdict == "Other weights at features.8"
    for selector in ("#verdict", ".divergence", ".divergence td.here", "svg", "svg text.first"):
        assert in_view(browser, selector), selector
    assert "first divergence: features.8" in browser.find_element(By.TAG_NAME, "svg").text
    captions = [e.text for e in browser.find_elements(By.CSS_SELECTOR, ".divergence figcaption")]
    assert captions == ["Gluon", "PyTorch", "Gluon − PyTorch"]
    marked = [e.text for e in browser.find_elements(By.CSS_SELECTOR, ".divergence td.here")]
    assert float(marked[1]) - float(marked[0]) == pytest.approx(0.001, abs=1e-6)
    assert float(marked[2]) == pytest.approx(-0.001, abs=1e-6)
    assert not in_view(browser, "#environment")  # or the check would pass anything


def test_a_divergence_of_one_net_of_many_is_visible_too(
    show: Show, clean: Report, deep: Report, diverged: Report
) -> None:
    browser = show(page([clean, clean, clean, diverged, clean]))
    verdict = browser.find_element(By.ID, "verdict").text
    assert verdict == "vgg11: Other weights at features.8"
    assert in_view(browser, ".divergence td.here")
    assert in_view(browser, "svg text.first")
    browser = show(page([clean, deep, diverged]))
    assert browser.find_element(By.ID, "verdict").text == "Not in parity: 2 of 3 nets"
    assert in_view(browser, ".divergence td.here")


@pytest.mark.parametrize("key", ["", Keys.ENTER])
def test_a_table_sorts_by_number(show: Show, diverged: Report, key: str) -> None:
    browser = show(page([diverged]))
    before = column(browser, "table.layers", 6)
    assert press(browser, "table.layers", 6, key) == "ascending"
    rising = column(browser, "table.layers", 6)
    numbers = [float(text) for text in rising if text]
    assert len(numbers) > 20
    assert numbers == sorted(numbers)
    assert rising != before
    assert sorted(rising) == sorted(before)
    assert press(browser, "table.layers", 6, key) == "descending"
    assert [float(t) for t in column(browser, "table.layers", 6) if t] == sorted(numbers)[::-1]
    assert press(browser, "table.layers", 0, key) == "ascending"
    assert column(browser, "table.layers", 6) == before
    marked = browser.find_elements(By.CSS_SELECTOR, "table.layers th[aria-sort]")
    assert len(marked) == 1


def test_a_table_sorts_names_with_their_numbers_and_blanks_last(
    show: Show, diverged: Report
) -> None:
    browser = show(page([diverged]))
    press(browser, "table.layers", 1)
    names = column(browser, "table.layers", 1)
    keys = [[int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)] for name in names[1:]]
    assert keys == sorted(keys)
    assert names[1:3] == ["classifier.0", "classifier.1"]
    for direction in ("ascending", "descending"):
        assert press(browser, "table.layers", 2) == direction
        values = column(browser, "table.layers", 2)
        blanks = [i for i, value in enumerate(values) if not value]
        assert blanks
        assert blanks == list(range(len(values) - len(blanks), len(values)))


def test_without_its_script_nothing_sorts(show: Show, diverged: Report) -> None:
    browser = show(page([diverged]).partition("<script>")[0])
    before = column(browser, "table.layers", 6)
    assert press(browser, "table.layers", 6) is None
    assert column(browser, "table.layers", 6) == before


def test_the_table_of_layers_is_there_where_errors_were_measured(clean: Report) -> None:
    assert "Layer by layer" in page([clean])
    case = project_case("lenet")
    structure = check_parity(case.gluon_net, case.torch_net, case.inputs, None, LEVELS[:1])
    assert structure.ok
    assert "Layer by layer" not in page([structure])


def test_200_layers_fit_and_can_be_told_apart(show: Show, deep: Report) -> None:
    assert deep.first_divergence is not None
    assert (deep.first_divergence.path, deep.first_divergence.level) == ("181", Level.FORWARD)
    browser = show(page([deep]))
    assert in_view(browser, "svg")
    assert in_view(browser, "svg text.first")
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= WIDTH
    boxes = browser.execute_script(
        """const svg = document.querySelector('svg');
        const box = e => { const r = e.getBoundingClientRect(); return [r.left, r.right]; };
        return {circles: [...svg.querySelectorAll('circle')].map(box),
                names: [...svg.querySelectorAll('text[text-anchor=middle]')].map(box)}"""
    )
    assert len(boxes["circles"]) == 200
    for kind, least in (("circles", 0.0), ("names", 2.0)):
        gaps = [after[0] - before[1] for before, after in pairwise(boxes[kind])]
        assert min(gaps) > least, kind
    assert boxes["circles"][-1][1] < WIDTH
    rows = browser.find_elements(By.CSS_SELECTOR, "table.layers tbody tr")
    assert len(rows) == 201  # and the net as a whole


def test_the_answer_says_which_side_moved(show: Show, deep: Report, clean: Report) -> None:
    answer = show(page([deep])).find_element(By.CSS_SELECTOR, ".answer").text
    assert answer.startswith("forward: not normal. PyTorch moved at 181")
    answers = show(page([clean])).find_elements(By.CSS_SELECTOR, ".answer")
    assert [answer.text.partition(".")[0] for answer in answers] == [
        "forward: normal",
        "backward: normal",
    ]


def _luminance(color: str) -> float:
    """Relative luminance, https://www.w3.org/TR/WCAG22/#dfn-relative-luminance."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


_COLORS = """
const ground = e => { for (; e; e = e.parentElement) {
  const c = getComputedStyle(e).backgroundColor;
  if (c !== 'rgba(0, 0, 0, 0)') return c; } return 'rgb(255, 255, 255)'; };
return [...document.querySelectorAll('body *')]
  .filter(e => e.checkVisibility())
  .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()))
  .map(e => [e.tagName + '.' + (e.className.baseVal ?? e.className), ground(e),
             e.closest('svg') ? getComputedStyle(e).fill : getComputedStyle(e).color]);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_both_schemes(
    show: Show, diverged: Report, clean: Report, scheme: str
) -> None:
    """Contrast of at least 4.5, https://www.w3.org/TR/WCAG22/#contrast-minimum."""
    browser = show(page([clean, diverged], OUTCOMES), scheme)
    body = browser.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")
    assert (_luminance(body) < 0.05) == (scheme == "dark")
    texts = browser.execute_script(_COLORS)
    assert len(texts) > 300
    for name, ground, color in texts:
        dark, light = sorted((_luminance(ground), _luminance(color)))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, ground, color)


def test_it_can_be_used_without_seeing_it(show: Show, diverged: Report) -> None:
    browser = show(page([diverged], OUTCOMES))
    assert browser.find_element(By.TAG_NAME, "html").get_attribute("lang") == "en"
    for picture in browser.find_elements(By.TAG_NAME, "svg"):
        assert re.search(r"\d+ layers, \d+ of \d+ marks", picture.get_attribute("aria-label") or "")
    heads = browser.find_elements(By.CSS_SELECTOR, "thead th")
    assert heads
    assert all(head.get_attribute("scope") == "col" for head in heads)
    nameless = browser.execute_script(
        "return [...document.querySelectorAll('button, summary, a')]"
        ".filter(e => !e.textContent.trim()).length"
    )
    assert nameless == 0
    levels = browser.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3')].map(e => +e.tagName[1])"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_whatever_a_net_is_called_is_text(show: Show) -> None:
    name = "</script><script>hacked = 1</script><img src=x onerror='hacked = 1'>\"'&"
    row = Row(
        level=Level.FORWARD,
        path=name,
        quantity=name,
        status=Status.DIVERGED,
        check=Check.LOCAL,
        side=Side.GLUON,
        dtype="float32",
        error=2.0,
        bound=1.0,
        compared=1,
        detail=name,
        diagnosis=name,
    )
    report = Report(name, (Level.FORWARD,), [row], environment={name: name})
    allowed = replace(row, status=Status.NOTE, detail=f"{ALLOWED}{name}")
    left_out = replace(row, status=Status.NOTE, detail=f"not compared: {name}")
    passed = Report(name, (Level.FORWARD,), [allowed, left_out, replace(row, status=Status.OK)])
    for html, selector in (
        (page([report]), ".divergence"),
        (page([passed]), "main"),
        (gate_page(hostile(name)), "main"),
    ):
        browser = show(html)
        assert not complaints(browser)
        assert browser.execute_script("return typeof hacked") == "undefined"
        assert not browser.find_elements(By.CSS_SELECTOR, "img, main script")
        assert name in browser.find_element(By.CSS_SELECTOR, selector).text


def hostile(name: str) -> Comparison:
    """A comparison in which everything that a user can name is called that."""
    moved = ChangedQuantity(
        name, "torch", Level.FORWARD, Check.LOCAL, name, name, name, Change.SEMANTICS, "float64",
        9.0, name, name, name, name,
    )  # fmt: skip
    verdict = SideVerdict("torch", Change.SEMANTICS, moved, 1, 2, name, name)
    apart = PairAgreement(Accord.APART, name, 7)
    return Comparison(
        name, name, {"torch": verdict}, [Agreement(NOW, 1, 1, name)], {name: [name]}, [moved],
        [name], [PairChange(name, apart, apart)], [name],
    )  # fmt: skip


def gate_of(*sides: SideVerdict, detail: str = "", accord: Accord = Accord.AGREED) -> Comparison:
    both = {side.side: side for side in sides}
    pair = PairChange(
        "detector", PairAgreement(accord, detail, 7), PairAgreement(accord, detail, 7)
    )
    return Comparison("baseline", "now", both, [], {}, pairs=[pair])


UNCHANGED = [SideVerdict(side, Change.UNCHANGED, compared=64) for side in ("gluon", "torch")]
LONG = "backbone.very_long_name_of_a_feature_extractor.stage_3.residual_block_17.convolution"


@pytest.fixture(scope="module")
def pages(clean: Report, diverged: Report) -> dict[str, str]:
    """One of each kind: with a long name, an exception, and what was not compared, among them."""
    row = diverged.failures[0]
    odd = [
        replace(row, path=LONG, status=Status.NOTE, detail=f"{ALLOWED}until March"),
        replace(row, path=LONG, status=Status.NOTE, detail="not compared: it never ran"),
    ]
    renamed = [replace(each, path=each.path.replace("features.8", LONG)) for each in diverged.rows]
    return {
        "clean": page([clean]),
        "diverged": page([replace(diverged, rows=renamed)]),
        "exceptions": page([replace(clean, rows=[*clean.rows, *odd])]),
        "unchanged": gate_page(gate_of(*UNCHANGED)),
        "apart": gate_page(gate_of(*UNCHANGED, detail=LONG, accord=Accord.APART)),
        "moved": gate_page(hostile(LONG)),
    }


# Words, as they end at white space and after the marks at which a name may be broken
_BROKEN = """
const broken = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
for (let node; node = walker.nextNode();) {
  const e = node.parentElement;
  if (!e.checkVisibility() || e.closest('svg, script, style, .hidden')) continue;
  for (const word of node.data.matchAll(/[^\\s._\\/\\-]+/g)) {
    const range = document.createRange();
    range.setStart(node, word.index);
    range.setEnd(node, word.index + word[0].length);
    const tops = new Set([...range.getClientRects()].map(r => Math.round(r.top)));
    if (tops.size > 1) broken.push(word[0]);
  }
}
return broken;
"""


@pytest.mark.parametrize("width", [390, WIDTH])
def test_no_word_is_broken_and_nothing_is_wider_than_the_screen(
    show: Show, pages: dict[str, str], width: int
) -> None:
    for name, html in pages.items():
        browser = show(html, width=width)
        broken = browser.execute_script(_BROKEN)
        assert broken == [], (name, broken)
        wide = browser.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width, name
        for picture in browser.find_elements(By.TAG_NAME, "svg"):
            assert picture.size["width"] >= 700, name  # at 390 it scrolls in its frame


def test_a_broken_word_is_seen(show: Show, pages: dict[str, str]) -> None:
    broken = pages["clean"].replace("</style>", "td { word-break: break-all; width: 3ch; }</style>")
    browser = show(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", broken))
    assert browser.execute_script(_BROKEN)


_RED = """
const mark = document.createElement('i');
mark.className = 'bad';
document.body.append(mark);
const red = getComputedStyle(mark).color;
mark.remove();
return [...document.querySelectorAll('body *')].filter(e => e.checkVisibility()).filter(e => {
  const s = getComputedStyle(e);
  const drawn = e.closest('svg') ? [s.fill, s.stroke] : [
    [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) ? s.color : '',
    parseFloat(s.borderLeftWidth) ? s.borderLeftColor : ''];
  return drawn.includes(red);
}).map(e => e.outerHTML.slice(0, 80));
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_red_in_a_verdict_that_is_not(
    show: Show, pages: dict[str, str], scheme: str
) -> None:
    for name in ("clean", "exceptions", "unchanged"):
        assert show(pages[name], scheme).execute_script(_RED) == [], name
    for name in ("diverged", "apart", "moved"):
        assert show(pages[name], scheme).execute_script(_RED), name
    browser = show(pages["apart"], scheme)
    first = browser.find_elements(By.CSS_SELECTOR, ".answer")[0]  # that nothing moved is green
    green, red = (_color(browser, kind) for kind in ("good", "bad"))
    assert first.value_of_css_property("border-left-color") == green
    assert browser.find_element(By.ID, "verdict").value_of_css_property("color") == red


def _color(browser: Browser, kind: str) -> str:
    return browser.execute_script(
        "const e = document.createElement('i'); e.className = arguments[0];"
        "document.body.append(e); const c = getComputedStyle(e).color; e.remove();"
        "return c.replace('rgb(', 'rgba(').replace(')', ', 1)')",
        kind,
    )


def test_what_is_allowed_or_left_out_is_no_ok(show: Show, pages: dict[str, str]) -> None:
    browser = show(pages["exceptions"])
    verdicts = column(browser, "table.layers", 10)
    assert set(verdicts) == {"ok", "allowed"}
    assert {"Allowed to differ", "Not compared, and why"} <= set(browser_texts(browser, "h3"))
    first = browser.find_element(By.CSS_SELECTOR, "#net-0 table tbody")
    assert "weights\nallowed" in first.text or "weights allowed" in first.text


def test_both_pages_explain_their_words(show: Show, pages: dict[str, str]) -> None:
    for name, html in pages.items():
        browser = show(html)
        words, sentences = (browser_texts(browser, f"#words {part}") for part in ("dt", "dd"))
        assert {"u", "envelope", "local", "inherited"} <= set(words), name
        for sentence in sentences:
            assert re.fullmatch(r"[A-Z][^.]*(\d\.\d[^.]*)*\.", sentence), sentence


def browser_texts(browser: Browser, selector: str) -> list[str]:
    return [element.text for element in browser.find_elements(By.CSS_SELECTOR, selector)]


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({"level": Level.STRUCTURE}, "Another structure at a"),
        ({"level": Level.WEIGHTS}, "Other weights at a"),
        ({"level": Level.FORWARD, "check": Check.LOCAL}, "Another function at a (forward)"),
        ({"level": Level.BACKWARD}, "Other gradients at a (backward)"),
        (
            {"level": Level.FORWARD, "check": Check.INHERITED, "dtype": "float32"},
            "More than rounding at a (forward)",
        ),
        ({"level": Level.FORWARD, "status": Status.NOT_COMPARED}, "Not compared: forward at a"),
        ({"level": Level.FORWARD, "status": Status.NOTE, "detail": "allowed, odd"},
         "Parity, with 1 exception allowed"),
        ({"level": Level.FORWARD, "status": Status.OK}, "Parity"),
    ],
)  # fmt: skip
def test_the_headline_says_what_kind_of_finding_it_is(changes: dict[str, Any], title: str) -> None:
    row = Row(level=Level.FORWARD, path="a", quantity="output", status=Status.DIVERGED, compared=1)
    row = replace(row, **changes)
    assert f"<title>{title}</title>" in page([Report("net", (row.level,), [row])])


def test_a_link_opens_its_nets_section(show: Show, clean: Report) -> None:
    browser = show(page([clean, clean]))
    details = browser.find_element(By.CSS_SELECTOR, "#net-1 > details")
    assert details.get_attribute("open") is None
    browser.find_element(By.CSS_SELECTOR, "a[href='#net-1']").click()
    assert details.get_attribute("open") is not None


def test_the_kill_matrix_shows_each_fault_at_its_level(show: Show) -> None:
    browser = show(page([], OUTCOMES))
    assert (
        browser.find_element(By.ID, "verdict").text == "2 of 5 faults not caught where they belong"
    )
    heads = [e.text for e in browser.find_elements(By.CSS_SELECTOR, ".kills th")]
    assert heads[2:5] == ["weights", "forward", "self-test"]
    rows: list[Any] = browser.find_elements(By.CSS_SELECTOR, ".kills tbody tr")
    signs = [[cell.text[:1] for cell in row.find_elements(By.CSS_SELECTOR, "td.c")] for row in rows]
    assert signs == [["●", "", ""], ["◐", "", ""], ["✕", "○", ""], ["", "", "●"], ["", "○", ""]]
    press(browser, ".kills", 0)
    assert not complaints(browser)
