"""The page: escaped, self-contained, all or nothing; and, where there is a Chromium, opened in it.

`apt-get install chromium` (or google-chrome) is all that the browser's tests need; without it they are left out, and
those on the text remain.
"""

import base64
import hashlib
import json
import math
import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import pytest

from atomlab.report import COLUMNS
from tests.report.chromium import CHROMIUM, Browser, browser
from tests.report.pages import EVIL, ROWS, atoms, write, write_first_screen

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")


class Page(HTMLParser):
    """Tags, and the text inside each script and table cell."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {"td": [], "script": []}
        self.open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open = tag
        if tag in self.inside:
            self.inside[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open in self.inside:
            self.inside[self.open][-1] += data


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write(path, 6144)
    return path


def test_every_text_is_escaped_and_nothing_comes_from_elsewhere(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    page = Page(text)
    assert [attributes.get("type") for tag, attributes in page.tags if tag == "script"] == [
        "application/json",
        *[None] * 4,
    ]
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert re.findall(r"https?:[^\"' ]*", text) == [
        "http://www.w3.org/2000/svg"
    ]  # the name of SVG, which nothing is read from
    assert {tag for tag, _ in page.tags} & {"link", "iframe", "object", "base", "form"} == set()
    assert all((a["src"] or "").startswith("data:image/png") for tag, a in page.tags if tag == "img")
    assert page.inside["td"][0].strip() == EVIL
    assert [file.name for file in report.parent.iterdir()] == ["report.html"]


def test_only_the_pages_own_scripts_may_run(report: Path) -> None:
    page = Page(report.read_text(encoding="utf-8"))
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    own = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in page.inside["script"][1:]]
    assert policy is not None
    assert re.findall(r"'sha256-([^']+)'", policy) == own
    assert "default-src 'none'" in policy
    assert "script-src 'unsafe" not in policy


def test_the_atoms_are_in_the_page_and_6144_of_them_under_20_mb(report: Path) -> None:
    found = json.loads(Page(report.read_text(encoding="utf-8")).inside["script"][0])
    expected = asdict(atoms(6144))
    for number in (2, 5, 6):
        assert [math.isnan(value) for value in expected["columns"][number]["values"]].count(True) == 1
        expected["columns"][number]["values"][7] = None  # JSON has no NaN
    assert found == json.loads(json.dumps(expected))
    assert report.stat().st_size < 20e6


def test_the_scripts_read_the_fields_that_the_page_has(report: Path) -> None:
    """Also where no Chromium runs them."""
    data, _, *scripts = Page(report.read_text(encoding="utf-8")).inside["script"]
    script = "\n".join(scripts)
    assert set(re.findall(r"\bdata\.(\w+)", script)) | {"samples"} == json.loads(data).keys()
    assert set(re.findall(r"\bcolumn\.(\w+)", script)) == json.loads(data)["columns"][0].keys()


@pytest.fixture(scope="module")
def tab(report: Path, tmp_path_factory: pytest.TempPathFactory):
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.open(report)
        yield opened


def shown(tab: Browser) -> list[int]:
    return tab.run("[...document.querySelectorAll('#atom-rows tr')].map(row => +row.dataset.atom)")


def search(tab: Browser, text: str) -> None:
    tab.run(
        f"{{ const box = document.getElementById('atom-search'); box.value = {json.dumps(text)};"
        f" box.dispatchEvent(new Event('input')); }}"
    )


def press(tab: Browser, key: str, where: str) -> None:
    tab.run(
        f"document.querySelector('{where}').dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}', bubbles: true,"
        f" cancelable: true}}))"
    )


def heading(tab: Browser) -> str:
    return tab.run("document.querySelector('#atom-detail h3').firstChild.textContent").strip()


@needs_chromium
def test_it_opens_without_an_error_and_runs_nothing_from_the_text(tab: Browser) -> None:
    assert tab.errors == []
    assert tab.run("scrollY") == 0  # the first screen is the top of the page
    assert tab.run("typeof window.broken") == "undefined"
    assert tab.run("document.querySelector('table.units td').textContent") == EVIL
    tab.run("location.hash = 'atom-0'")
    tab.run("new Promise(done => setTimeout(done, 50))")
    assert EVIL in tab.run("document.getElementById('atom-detail').textContent")
    assert tab.run("document.querySelectorAll('#atom-detail img, #atom-detail script').length") == 0


@needs_chromium
def test_the_most_telling_atoms_come_first_and_sorting_puts_what_is_missing_last(tab: Browser) -> None:
    search(tab, "")
    telling, rate = (atoms(6144).columns[number].values for number in (5, 1))
    known = [atom for atom in range(6144) if atom != 7]
    assert shown(tab) == sorted(known, key=lambda atom: -(telling[atom] or 0))[:50]
    click = "document.querySelectorAll('#atom-head button')[{}].click()"
    tab.run(click.format(2))
    assert shown(tab) == sorted(range(6144), key=lambda atom: -(rate[atom] or 0))[:50]
    tab.run(click.format(2))
    assert shown(tab) == sorted(range(6144), key=lambda atom: rate[atom] or 0)[:50]
    choose = "{{ const menu = document.getElementById('atom-sort'); menu.value = {};"
    choose += " menu.dispatchEvent(new Event('change')); }}"
    for _ in range(2):
        tab.run(choose.format(2))
        search(tab, "atom < 10")
        assert shown(tab)[-1] == 7
        search(tab, "")
    tab.run(choose.format(5))
    assert shown(tab) == sorted(known, key=lambda atom: -(telling[atom] or 0))[:50]


@needs_chromium
def test_no_table_is_wider_than_the_window_and_its_menu_brings_columns_back(tab: Browser) -> None:
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")
    holders = "[...document.querySelectorAll('.scroll')]"
    assert tab.run(f"{holders}.every(holder => holder.scrollWidth <= holder.clientWidth)")
    hidden = "[...document.querySelectorAll('table.units th')].filter(head => head.hidden).length"
    assert tab.run(hidden) > 10
    tab.run("document.querySelectorAll('details.columns input').forEach(box => { if (!box.checked) box.click(); })")
    assert tab.run(hidden) == 0
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")  # they scroll inside, and the names stay
    sticky = "getComputedStyle(document.querySelector('{}')).position"
    assert tab.run(sticky.format("table.units td")) == tab.run(sticky.format("table.units thead th")) == "sticky"


@needs_chromium
@pytest.mark.parametrize("key", ["coherence", "certified_level_4", "unit"])
def test_a_table_sorts_by_any_column_both_ways_with_dashes_last(tab: Browser, key: str) -> None:
    """Units are words even where they begin with a number."""
    header = next(column.header for column in COLUMNS if column.key == key)
    press = (
        "{ const head = [...document.querySelectorAll('table.units th button')]"
        f".find(button => button.textContent === {json.dumps(header)});"
        " head.click(); [...head.closest('table').tBodies[0].rows].map(row => row.cells[0].textContent) }"
    )
    known = [row for row in ROWS if row[key] is not None and row[key] == row[key]]
    for reverse in (True, False):
        units = tab.run(press)
        ordered = [row["unit"] for row in sorted(known, key=lambda row: row[key], reverse=reverse)]
        assert units[: len(known)] == ordered
        assert sorted(units) == sorted(row["unit"] for row in ROWS)


@needs_chromium
def test_search_compares_columns_and_ranks_the_firing_token_before_its_context(tab: Browser) -> None:
    data = atoms(6144)
    rate = data.columns[1].values
    for text in ("rate>0.99 atom<3000", "rate > .99   atom < 3000", "RATE >.99 atom<3e3"):
        search(tab, text)
        assert sorted(shown(tab)) == [i for i in range(3000) if (rate[i] or 0) > 0.99][:50]
    search(tab, "WORD1999 atom >= 5000")
    ranks = []
    for atom in shown(tab):
        firing = [data.vocabulary[data.tokens[int(line[1])]] == " word1999" for line in data.contexts[atom]]
        ranks.append(sum(firing))
        around = "".join(
            data.vocabulary[token]
            for line in data.contexts[atom]
            for token in data.tokens[int(line[1]) - 16 : int(line[1]) + 7]
        )
        assert "word1999" in around or any(
            data.vocabulary[token] == " word1999" for token, _ in data.raised[atom] or []
        )
    assert ranks[0] > 0
    assert ranks == sorted(ranks, reverse=True)
    assert 5999 in shown(tab)  # its first context fires on this word
    search(tab, "#4321")
    assert shown(tab)[0] == 4321
    search(tab, "nowhere-to-be-found")
    assert shown(tab) == []
    search(tab, "")
    assert tab.errors == []


@needs_chromium
def test_an_atom_shows_its_contexts_and_leads_to_its_neighbours(tab: Browser) -> None:
    data = atoms(6144)
    tab.run("location.hash = 'atom-12'")
    tab.run("new Promise(done => setTimeout(done, 50))")
    assert heading(tab) == "Atom 12"
    assert tab.run("document.querySelectorAll('#atom-detail p.context').length") == len(data.contexts[12])
    titles = tab.run("[...document.querySelectorAll('#atom-detail h3')].map(one => one.textContent)")
    kinds = ["Strongest contexts", "Upper quarter of its values", "Second quarter", "Third quarter", "Lower quarter"]
    assert titles[1:7] == [*kinds, "At random"]
    first = "document.querySelector('#atom-detail p.context')"
    line = data.contexts[12][0]
    tokens = [data.vocabulary[token].strip() for token in data.tokens[int(line[1]) - 16 : int(line[1]) + 7]]
    assert tab.run(f"[...{first}.querySelectorAll('mark')].map(token => token.textContent)") == tokens
    assert tab.run(f"{first}.textContent") == "1.5" + "".join(f" {token}" for token in tokens)
    values = tab.run(f"[...{first}.querySelectorAll('mark')].map(token => +token.title)")
    assert values == [0.5 if place == 14 else 1.5 if place == 16 else 0 for place in range(23)]
    shaded = tab.run(f"[...{first}.querySelectorAll('mark')].map(token => token.style.background !== '')")
    assert shaded == [value > 0 for value in values]
    assert tab.run(f"{first}.querySelector('mark.own').textContent") == tokens[16]
    columns = len(data.columns)
    for pairs in ("#atom-detail dl dt", "#atom-definitions dd"):
        assert tab.run(f"document.querySelectorAll('{pairs}').length") == columns
    widths = tab.run(
        "[...document.querySelectorAll('#atom-detail .bars')[0].querySelectorAll('.bar')].map(b => b.style.width)"
    )
    assert widths == ["100%", "60%"]
    assert tab.run("document.querySelectorAll('#atom-detail svg circle').length") == 3
    tab.run("[...document.querySelectorAll('#atom-detail .bars')].at(-2).querySelector('a').click()")
    tab.run("new Promise(done => setTimeout(done, 50))")
    assert heading(tab) == "Atom 13"
    assert tab.run("location.hash") == "#atom-13"


@needs_chromium
def test_an_atom_says_whether_it_comes_back_and_its_link_is_copied(tab: Browser) -> None:
    again = (
        "[...document.querySelectorAll('#atom-detail h3')].map(one => one.textContent).includes('Stability over seeds')"
    )
    for atom, known in ((7, False), (21, True)):
        tab.run(f"location.hash = 'atom-{atom}'")
        tab.run("new Promise(done => setTimeout(done, 50))")
        assert tab.run(again) == known
    assert (
        tab.run("[...document.querySelectorAll('#atom-detail .bars')].at(-1).querySelector('.bar').style.width")
        == "80%"
    )
    tab.run(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async text => { window.copied = text; }},"
        " configurable: true})"
    )
    tab.run("document.querySelector('button.copy').click()")
    tab.run("new Promise(done => setTimeout(done, 50))")
    assert tab.run("document.querySelector('button.copy').textContent") == "copied"
    assert tab.run("window.copied") == tab.run("location.href.split('#')[0]") + "#atom-21"


@needs_chromium
def test_the_verdict_and_the_figures_are_on_the_first_screen(tab: Browser, report: Path, tmp_path: Path) -> None:
    """Of a window of 1,280 by 800, with the verdict and the facts of a real run."""
    tab.send("Emulation.setDeviceMetricsOverride", width=1280, height=800, deviceScaleFactor=1, mobile=False)
    write_first_screen(tmp_path / "report.html")
    tab.open(tmp_path / "report.html")
    bottom = "document.querySelector('{}').getBoundingClientRect().bottom"
    top = "document.querySelector('.overview').getBoundingClientRect().top"
    assert tab.run(bottom.format(".conclusion")) <= tab.run(top)
    assert tab.run(bottom.format("nav")) <= tab.run(bottom.format(".facts")) <= tab.run(bottom.format(".conclusion"))
    bottoms = tab.run("[...document.querySelectorAll('.overview img')].map(one => one.getBoundingClientRect().bottom)")
    assert len(bottoms) == 3
    assert max(bottoms) <= 800
    tab.send("Emulation.clearDeviceMetricsOverride")
    tab.open(report)


@needs_chromium
def test_dark_mode_has_light_text_and_paper_has_neither_menus_nor_scroll_bars(tab: Browser) -> None:
    style = "getComputedStyle(document.querySelector('{}')).{}"

    def look(**wanted: str) -> list[str]:
        features = [{"name": "prefers-color-scheme", "value": wanted.get("scheme", "light")}]
        tab.send("Emulation.setEmulatedMedia", media=wanted.get("media", "screen"), features=features)
        asked = (("body", "backgroundColor"), ("body", "color"), ("nav", "display"), (".scroll", "overflow"))
        return [tab.run(style.format(*one)) for one in asked]

    assert look() == ["rgb(255, 255, 255)", "rgb(26, 26, 26)", "block", "auto"]
    assert look(scheme="dark")[:2] == ["rgb(21, 24, 28)", "rgb(230, 230, 230)"]
    assert tab.run(style.format("img", "filter")) != "none"  # white figures would glare
    for scheme in ("light", "dark"):
        assert look(scheme=scheme, media="print") == ["rgb(255, 255, 255)", "rgb(0, 0, 0)", "none", "visible"]
        assert tab.run(style.format("img", "filter")) == "none"
    assert look()[2] == "block"


@needs_chromium
def test_the_keyboard_searches_chooses_and_turns_pages(tab: Browser) -> None:
    search(tab, "")
    press(tab, "/", "body")
    assert tab.run("document.activeElement.id") == "atom-search"
    press(tab, "Enter", "#atom-search")
    order = shown(tab)
    assert heading(tab) == f"Atom {order[0]}"
    for _ in range(2):
        press(tab, "ArrowDown", "#atom-rows")
    assert heading(tab) == f"Atom {order[2]}"
    assert tab.run("document.querySelector('#atom-rows tr[aria-selected=true]').dataset.atom") == str(order[2])
    press(tab, "PageDown", "#atom-rows")
    assert shown(tab) != order
    assert heading(tab) == f"Atom {shown(tab)[2]}"
    press(tab, "PageUp", "#atom-rows")
    assert shown(tab) == order


@needs_chromium
def test_of_twenty_thousand_atoms_only_a_page_is_drawn(tab: Browser, tmp_path: Path) -> None:
    write(tmp_path / "report.html", 20_000, contexts=20)
    tab.open(tmp_path / "report.html")
    drawn = "document.querySelectorAll('#atom-rows tr').length"
    assert tab.run(drawn) == 50
    before = shown(tab)
    tab.run("document.getElementById('atom-on').click()")
    assert len(set(shown(tab)) - set(before)) == 50
    search(tab, "rate>0.5")
    assert tab.run(drawn) == 50
    search(tab, "")
    tab.run("document.querySelectorAll('#atom-head button')[2].click()")
    rate = atoms(20_000).columns[1].values
    assert shown(tab) == sorted(range(20_000), key=lambda atom: -(rate[atom] or 0))[:50]
    assert tab.errors == []
