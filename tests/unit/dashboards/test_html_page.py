"""The page is complete, offline, and lets nothing of the target become markup or script."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import stat
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from gputap.dashboards import html_charts, html_parts, html_report
from gputap.dashboards.timeline import Bar
from gputap.profiler.analysis.model import Abstained, Kernel, Report
from gputap.profiler.errors import CaptureNotWritable
from tests.sample_report import (
    COLLECTIVES,
    FINDINGS,
    OPERATORS,
    rank,
    sample_report,
    sample_timeline,
)

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x1b\u202e]]>--><!--"


class Page(HTMLParser):
    """What a browser would see: tags, attributes, texts, balanced or not."""

    VOID = frozenset({"meta", "link", "br", "wbr", "img", "hr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert not self._open, f"unclosed {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag != "wbr":
            self.words.append(" ")
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts.append(data)
        elif self._open and self._open[-1] not in ("style", "title"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    @property
    def data(self) -> Any:
        return json.loads(self.scripts[0])


def render(report: Report | None = None, *timeline: Any, **options: Any) -> tuple[str, Page]:
    html = html_report.render(report or sample_report(), timeline, **options)
    return html, Page(html)


GPU_TIME = {"compute": 5_000_000, "exposed_comm": 1_000_000, "exposed_memcpy": 0, "idle": 9}
KERNEL = Kernel(
    name="gemm_short",
    full_name="void gemm<float>(int)",
    kind="kernel",
    category="matrix multiplication",
    count=78,
    total_ns=4_200_000,
    mean_ns=53_846,
    max_ns=61_000,
    share=0.7,
    top_operator="aten::mm",
    top_module="blocks.0.mlp",
)
KERNEL_TEXTS = ("name", "full_name", "kind", "category", "top_operator", "top_module")


def hostile_report() -> Report:
    return sample_report(
        job=HOSTILE,
        level_reasons=(HOSTILE,),
        mode=HOSTILE,
        target={HOSTILE: HOSTILE, "command": [HOSTILE], "nested": {HOSTILE: [HOSTILE]}},
        ranks=(replace(rank(0), host=HOSTILE, breakdown=GPU_TIME, devices=(HOSTILE,)),),
        operators=tuple(
            replace(op, name=HOSTILE, kind=HOSTILE, top_module=HOSTILE, top_source=HOSTILE)
            for op in OPERATORS
        ),
        modules=tuple(
            replace(m, name=f"{HOSTILE}.{i}", module_class=HOSTILE)
            for i, m in enumerate(sample_report().modules)
        ),
        collectives=tuple(
            replace(c, op=HOSTILE, backend=HOSTILE, group_name=HOSTILE) for c in COLLECTIVES
        ),
        findings=tuple(
            replace(f, claim=HOSTILE, advice=HOSTILE, evidence=({HOSTILE: HOSTILE},))
            for f in FINDINGS
        ),
        abstained=(Abstained(HOSTILE, HOSTILE),),
        kernels=(replace(KERNEL, **dict.fromkeys(KERNEL_TEXTS, HOSTILE)),),
        unjoined={HOSTILE: 3},
    )


def hostile_timeline() -> tuple[Any, ...]:
    drawn = sample_timeline()[0]
    bar = Bar(0, 5, 0, HOSTILE, HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1)
    tracks = tuple(replace(track, name=HOSTILE) for track in drawn.tracks)
    return (replace(drawn, why=HOSTILE, bars=(bar, *drawn.bars), tracks=tracks),)


def test_verdict_comes_first_and_every_section_is_there() -> None:
    _, page = render(None, *sample_timeline())
    said = page.text
    order = [
        "framework level",
        "no GPU kernel times were measured",
        "The job waits for data: 113 ms of each 194 ms step (58%).",
        "40 steps on each of 2 ranks found, 15% recorded",
        "What holds it back",
        "Raise num_workers of the DataLoader from 2 to 6",
        "AdamW runs unfused",
        "Rank 0: 39 whole steps, 6 recorded; median 187 ms, longest 248 ms (step 17).",
        "2 steps cut by the window's edge are left out.",
        "Median recorded step: step 5 of rank 1, 178 ms",
        "12 operators. Times and calls are per step, over 12 recorded steps.",
        "VisionTransformer",
        "default_pg",
        "That is not the same as fine.",
        "the process uses no CUDA device",
        "310 µs, one thread",
        "python train.py --model vit-b16 --batch-size 64",
        "dataloader: num workers",
    ]
    places = [said.find(words) for words in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)


def test_nothing_of_the_target_becomes_markup_or_script() -> None:
    plain, _ = render(sample_report(), *sample_timeline())
    html, page = render(hostile_report(), *hostile_timeline(), notes=(HOSTILE,))
    assert len(page.scripts) == len(Page(plain).scripts) == 4
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert not [a for _, attrs in page.tags for a in attrs if a.startswith("on")]
    assert "\x1b" not in html
    assert "\u202e" not in html
    assert "<img src=x" not in html
    assert "alert(1)" in page.text
    assert page.data["timelines"][0]["strings"]


def test_only_the_scripts_of_the_page_may_run_and_nothing_may_be_fetched() -> None:
    html, page = render()
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv")) or ""
    allowed = set(re.findall(r"'sha256-([^']+)'", policy))
    hashes = {
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for script in page.scripts[1:]
    }
    assert hashes == allowed
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy.split("script-src")[1]
    own = html
    for script in page.scripts[1:]:
        own = own.replace(script, "")
    assert not re.findall(r"(?:https?:)?//[\w.]+\.\w+", own)
    for _, attrs in page.tags:
        for name in ("src", "href"):
            if attrs.get(name):
                assert re.match(r"#|data:", attrs[name] or "")
    assert not re.search(r"https?://", html_report._asset("report.js"))
    assert len(html) < 10_000_000


def test_plotly_is_there_once() -> None:
    html, _ = render()
    assert html.count("plotly.js v") == 1


def test_it_reads_without_a_mouse_or_eyes() -> None:
    _, page = render(None, *sample_timeline())
    tables = [tag for tag, _ in page.tags].count("table")
    assert tables == [tag for tag, _ in page.tags].count("caption") == 6
    charts = [attrs for _, attrs in page.tags if attrs.get("class") == "chart"]
    assert len(charts) == 3
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in charts)
    heads = [attrs for tag, attrs in page.tags if tag == "th"]
    assert heads
    assert all(attrs["scope"] == "col" for attrs in heads)
    identities = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(identities) == len(set(identities))
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert {str(link).removeprefix("#") for link in links} <= set(identities)
    labels = [attrs["aria-labelledby"] for _, attrs in page.tags if "aria-labelledby" in attrs]
    assert set(labels) <= set(identities)


def test_merged_and_hidden_events_are_said() -> None:
    drawn = replace(sample_timeline()[0], hidden_events=7)
    assert html_charts.timeline_words(drawn) == (
        "499 events in 178 ms, drawn as 462 bars; the 38 shortest were merged into 1 of these. "
        "7 events on further threads or deeper levels are not drawn."
    )


def test_bars_inside_backward_optimizer_and_loader_are_coloured_like_them() -> None:
    def bar(start: int, length: int, lane: int, kind: str, name: str) -> Bar:
        return Bar(start, length, lane, kind, name, None, None, None, 1)

    bars = (
        bar(0, 10, 0, "user_scope", "enumerate(DataLoader)#x"),
        bar(20, 10, 0, "operator", "aten::linear"),
        bar(40, 10, 0, "operator", "autograd::engine::evaluate_function: X"),
        bar(41, 8, 1, "operator", "aten::mm"),
        bar(60, 20, 0, "user_scope", "Optimizer.step#SGD.step"),
        bar(61, 8, 1, "operator", "aten::add_"),
        bar(90, 8, 0, "user_scope", "mine"),
        bar(99, 1, 0, "gc", "gc"),
    )
    track = sample_timeline()[0].tracks[0]
    chart = html_charts.timeline_chart(
        replace(sample_timeline()[0], bars=bars, tracks=(replace(track, lanes=2),))
    )
    assert chart["hue"] == [
        "data_wait",
        "forward",
        "backward",
        "backward",
        "optimizer",
        "optimizer",
        "scope",
        "gc",
    ]


def test_many_steps_are_grouped_and_many_ranks_cut() -> None:
    steps = tuple(
        replace(s, step=i * 40 + s.step, whole=True) for i in range(30) for s in rank(0).steps
    )
    ranks = tuple(
        replace(rank(0), rank=n, steps=steps, median_step_ns=n)
        for n in range(html_charts.PANELS + 2)
    )
    report = sample_report(ranks=ranks)
    chart = html_charts.step_chart(report)
    assert chart is not None
    assert chart["group"] == 4
    assert [p["title"] for p in chart["panels"]] == [f"rank {n}" for n in range(2, 10)]
    columns = chart["panels"][0]["columns"]
    assert len(columns) == 300
    assert sum(column["n"] for column in columns) == 1200
    assert columns[1]["title"].startswith("steps 4 to 7: mean")
    assert columns[1]["recorded"]
    assert columns[1]["title"].endswith("of 3, recorded")
    assert html_charts.step_words(report)[-1] == "2 faster ranks are not drawn."


def test_the_module_tree_is_in_order_and_shows_names_from_the_nearest_above() -> None:
    html = html_parts.modules(sample_report())
    names = re.findall(r'class="above">(.*?)</span><b>(.*?)</b>', html.replace("<wbr>", ""))
    assert names[:5] == [
        ("", "(root)"),
        ("", "conv_proj"),
        ("", "encoder"),
        ("encoder.", "layers.0"),
        ("encoder.layers.0.", "ln_1"),
    ]
    assert html_parts._path("layers.9.b") < html_parts._path("layers.10.a")


def test_simulated_and_notes_are_banners() -> None:
    _, page = render(sample_report(simulated=True), notes=("the capture was cut short: disk full",))
    assert "Simulated. The GPU of this run is not a real one" in page.text
    assert "the capture was cut short: disk full" in page.text


def test_device_level_shows_gpu_time_and_kernels() -> None:
    html, page = render(
        sample_report(
            level="device",
            level_reasons=(),
            ranks=(replace(rank(0), breakdown=GPU_TIME, devices=("NVIDIA H100",)),),
            operators=tuple(replace(op, device_ns=120_000) for op in OPERATORS),
            kernels=(KERNEL,),
            unjoined={"no_call": 1_234},
        )
    )
    assert "GPU kernel times were measured on the device" in page.text
    assert "NVIDIA H100 5.00 ms 83% 1.00 ms 17%" in page.text
    assert 'title="void gemm&lt;float&gt;(int)"' in html
    assert "gemm_short matrix multiplication 108 µs 70% 2 53.8 µs 61.0 µs aten::mm" in page.text
    assert "1,234 (the call was before the window, or its record was lost)" in page.text
    assert "GPU time" in page.text


def test_no_gpu_section_below_level_device() -> None:
    _, page = render()
    assert "GPU time" not in page.text
    assert "kernel or copy" not in page.text


def test_an_empty_report_is_a_page() -> None:
    _, page = render(
        sample_report(
            ranks=(), operators=(), modules=(), collectives=(), findings=(), abstained=(), target={}
        )
    )
    assert "Nothing was captured" in page.text
    assert page.data["steps"] is None


def test_the_file_is_for_its_owner_only(tmp_path: Path) -> None:
    path = html_report.write(tmp_path / "report.html", sample_report())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(CaptureNotWritable, match=r"report\.html: No such file"):
        html_report.write(tmp_path / "missing" / "report.html", sample_report())
