"""The report page in a real browser: charts drawn, console silent, network untouched."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from gputap.dashboards import html_report
from tests.sample_report import sample_report, sample_timeline
from tests.unit.dashboards.test_html_page import hostile_report, hostile_timeline

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def works(browser: str) -> bool:
    """Not so the program that Ubuntu installs where it has no snap."""
    return subprocess.run([browser, "--version"], capture_output=True, check=False).returncode == 0


FOUND = (found for name in NAMES if (found := shutil.which(name)))
CHROMIUM = next(filter(works, FOUND), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium that works here; `make test` tries to install it"
)

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--window-size=1280,2000",
    "--virtual-time-budget=10000",
)


def browse(page: Path, profile: Path, *flags: str) -> tuple[str, list[str]]:
    """Open `page`; what the browser wrote to stdout, and every line of the page's console."""
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def png_size(path: Path) -> tuple[int, int]:
    raw = path.read_bytes()
    return int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big")


def test_an_error_on_a_page_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    page.write_text("<script>console.error('planted'); nothing_here();</script>")
    _, console = browse(page, tmp_path / "profile", "--dump-dom")
    assert any("planted" in line for line in console)
    assert any("nothing_here is not defined" in line for line in console)


def test_charts_are_drawn_and_the_console_is_silent(tmp_path: Path) -> None:
    page = html_report.write(tmp_path / "report.html", sample_report(), sample_timeline())
    dom, console = browse(page, tmp_path / "profile", "--dump-dom")
    assert console == []
    assert 'data-charts="3"' in dom
    for chart, bars in (("steps-chart", 2 * (6 * 5 + 33 * 3)), ("timeline-0", 462)):
        part = dom[dom.index(f'id="{chart}"') :]
        part = part[: part.index('class="controls"')]
        assert "main-svg" in part
        assert len(re.findall(r'class="point"', part)) == bars


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_it_looks_like_something_at_1280(tmp_path: Path, scheme: str) -> None:
    page = html_report.write(tmp_path / "report.html", sample_report(), sample_timeline())
    shot = tmp_path / "shot.png"
    number = {"dark": 0, "light": 1}[scheme]
    flags = (f"--screenshot={shot}", f"--blink-settings=preferredColorScheme={number}")
    _, console = browse(page, tmp_path / "profile", *flags)
    assert console == []
    assert png_size(shot) == (1280, 2000)
    assert shot.stat().st_size > 50_000


def test_hostile_names_run_nothing_and_break_nothing(tmp_path: Path) -> None:
    page = html_report.write(
        tmp_path / "report.html", hostile_report(), hostile_timeline(), notes=("<b>note</b>",)
    )
    dom, console = browse(page, tmp_path / "profile", "--dump-dom")
    assert console == []
    assert 'data-charts="2"' in dom
    assert "<img" not in dom


def test_sorting_and_zooming_work_by_keyboard_events(tmp_path: Path) -> None:
    html = html_report.render(sample_report(), sample_timeline())
    probe = """
      const q = (s) => document.querySelector(s);
      q("#operators th:nth-child(1) button").click();
      q("#modules th:nth-child(5) button").click();
      const before = q("#timeline-0").layout.xaxis.range.slice();
      q("button[data-chart=timeline-0][data-do=in]").click();
      const zoomed = q("#timeline-0").layout.xaxis.range.slice();
      q("button[data-chart=timeline-0][data-do=right]").click();
      q("button[data-chart=timeline-0][data-do=right]").click();
      const moved = q("#timeline-0").layout.xaxis.range.slice();
      q("button[data-chart=timeline-0][data-do=out]").click();
      const out = q("#timeline-0").layout.xaxis.range.slice();
      document.body.dataset.probe = JSON.stringify({
        first: q("#operators tbody tr code").textContent,
        sorted: q("#operators th[aria-sort]").textContent,
        flat: q("#modules").className, before, zoomed, moved, out });
    """
    page = tmp_path / "probed.html"
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    page.write_text(html.replace("</body>", f"<script>{probe}</script></body>"))
    dom, console = browse(page, tmp_path / "profile", "--dump-dom")
    assert console == []
    found = re.search(r'data-probe="([^"]*)"', dom)
    assert found
    seen = json.loads(unescape(found.group(1)))
    assert seen["first"] == "AddmmBackward0"
    assert seen["sorted"] == "operator"
    assert seen["flat"] == "sortable flat"
    full = seen["before"][1]
    assert seen["before"][0] == 0
    assert seen["zoomed"] == pytest.approx([full / 4, full * 3 / 4])
    assert seen["moved"] == pytest.approx([full / 2, full])
    assert seen["out"] == pytest.approx([0, full])
