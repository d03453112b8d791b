"""How long the page of a report takes in a browser: until something is painted, is sorted, and is found.

`python -m benchmarks.report_page [atoms] [contexts]`: a page with so many atoms (20,000) and contexts of each (20: 8 strongest,
8 of the quarters, 4 at random), as `atomlab evaluate` writes it, in headless Chromium. Medians of five openings.
"""

import statistics
import sys
import tempfile
from pathlib import Path

from tests.report.chromium import browser
from tests.report.pages import write

_PAINTED = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
_LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"
_AFTER = """(async () => {{ const start = performance.now(); {action};
await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done))); return performance.now() - start; }})()"""
_SORTED = _AFTER.format(action="document.querySelectorAll('#atom-head button')[2].click()")
_FOUND = _AFTER.format(
    action="const box = document.getElementById('atom-search'); box.value = 'word1999 rate > 0.1';"
    " box.dispatchEvent(new Event('input'))"
)


def main(count: int = 20_000, contexts: int = 20) -> None:
    """Prints the medians in milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        write(page, count, contexts)
        times: dict[str, list[float]] = {}
        for attempt in range(5):
            with browser(Path(folder) / str(attempt)) as tab:
                tab.open(page)
                for name, script in {
                    "painted": _PAINTED,
                    "loaded": _LOADED,
                    "sorted": _SORTED,
                    "found": _FOUND,
                }.items():
                    times.setdefault(name, []).append(float(tab.run(script)))
        print(f"{count:,} atoms, {contexts} contexts each, {page.stat().st_size / 1e6:.1f} MB")
        for name, found in times.items():
            print(f"{name:8} {statistics.median(found):7.0f} ms")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
