"""The report as its readers have it: opened from a file, in a real browser, from jobs in every state."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import report_jobs
from browser import Visit, axe, browser, visit, wait_until
from conftest import needs
from helpers import cli, run_command

from otel_stageio import Pipeline
from otel_stageio.report import render
from otel_stageio.testing import FixedClock, Records, fixed

__all__ = ["browser", "visit"]

VENDOR = Path(report_jobs.ROOT, "otel_stageio", "report", "vendor", "uplot")
EVERY = {
    "demo": "success",
    "failed": "failed",
    "crashed": "crashed",
    "running": "running",
    "original": "failed",
    "half_written": "crashed",
    "hostile": "failed",
    "empty": "success",
    "gpu": "success",
}


class Report(NamedTuple):
    job: Path
    path: Path
    html: str


Make = Callable[[str], Report]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """``report("failed")`` is the report of that job of ``report_jobs``, written where a user has it."""
    made: dict[str, Report] = {}

    def make(name: str) -> Report:
        if name not in made:
            job = tmp_path_factory.mktemp(name) / "job"
            if name == "running":
                with report_jobs.running(job):
                    html = render(str(job))
            else:
                if name == "gpu":
                    import nvml

                    needs("pynvml")
                    report_jobs.gpu(job, nvml.build(job.parent / "nvml", needs("cc")))
                elif name == "demo":
                    for module in ("av", "numpy", "pocketsphinx", "scipy", "srt"):
                        needs(module)
                    report_jobs.demo(job)
                else:
                    getattr(report_jobs, name)(job)
                html = render(str(job))
            path = job / "report.html"
            path.write_text(html, encoding="utf-8")
            made[name] = Report(job, path, html)
        return made[name]

    return make


def unfold(page: Any) -> None:
    """Everything that a reader can open."""
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    for button in page.locator("#waterfall .fold[aria-expanded=false]").all():
        button.click()


def stage_of(page: Any, name: str) -> Any:
    return page.locator(f"section.stage[data-stage='{name}']")


# -- every report ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", EVERY)
def test_a_report_opens_without_a_complaint_and_for_everybody(
    visit: Visit, report: Make, name: str, dark: bool
) -> None:
    page = visit(report(name).path, dark=dark)
    assert page.locator("body").get_attribute("data-result") == EVERY[name]
    assert page.locator("#verdict h1").inner_text()
    assert page.locator("#quality").is_visible()
    unfold(page)
    assert axe(page, *(["color-contrast"] if dark else [])) == []


@pytest.mark.parametrize("name", EVERY)
def test_a_report_may_load_and_run_nothing_but_itself(report: Make, name: str) -> None:
    html = report(name).html
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.replace("&#39;", "'").split(";"))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in policy
    assert not rules.keys() & {"connect-src", "img-src", "font-src", "frame-src"}
    assert not re.findall(r"<(?:link|img|iframe|object|embed|form|base)\b", html)
    assert not re.findall(r'<[^>]* (?:src|href)="(?!#)', html)


@pytest.mark.parametrize("name", ["demo", "failed", "original"])
def test_a_report_fits_a_narrow_window(visit: Visit, report: Make, name: str) -> None:
    page = visit(report(name).path, viewport={"width": 400, "height": 800})
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


# -- the verdict -------------------------------------------------------------------------------------------------------


def test_the_first_thing_said_is_what_failed_why_and_what_to_do_now(visit: Visit, report: Make) -> None:
    made = report("failed")
    page = visit(made.path)
    assert page.locator("h1").inner_text().endswith("subtitles failed at asr")
    assert page.locator("#verdict .why").inner_text() == "RuntimeError: chunk 12 of 41 could not be transcribed"
    commands = page.locator("#verdict .next code").all_inner_texts()
    assert f"otel-stageio show {made.job} asr --full" in commands
    for command in commands:  # as it stands there, it works
        done = run_command(cli(*command.split()[1:]), cwd=made.job)
        assert done.returncode in (0, 1), (command, done.stderr)
        assert done.stdout
        assert not done.stderr, command


def test_a_killed_stage_is_where_it_crashed_and_has_its_last_words(visit: Visit, report: Make) -> None:
    page = visit(report("crashed").path)
    assert page.locator("h1").inner_text().endswith("subtitles crashed at asr")
    assert "its process is gone" in page.locator("#verdict .why").inner_text()
    assert "chunk 2 of 41" in stage_of(page, "asr").locator("pre").inner_text()
    assert "not reached: mux" in page.locator("#waterfall").inner_text()


def test_a_running_job_says_where_it_stands(visit: Visit, report: Make) -> None:
    page = visit(report("running").path)
    assert page.locator("h1").inner_text().endswith("subtitles is running")
    assert page.locator("#verdict .why").inner_text() == "now: asr"
    assert page.locator("#waterfall .bar.stage.state-running").count() == 1
    assert page.locator("#waterfall .bar.span.state-running").count() == 2  # transcribe, and chunk 2 in it
    assert "2 of 41 chunks" in stage_of(page, "asr").inner_text()


def test_a_job_whose_files_are_torn_says_which(visit: Visit, report: Make) -> None:
    page = visit(report("half_written").path)
    said = page.locator("#quality li.bad").all_inner_texts()
    for file in ("01_demux/manifest.json", "06_asr/manifest.json", "12_mux/manifest.json", "run.json"):
        assert [line for line in said if file in line], (file, said)
    assert "chunk 12 of 41" in stage_of(page, "asr").inner_text()  # the journal has what the manifest lost


def test_a_job_of_the_original_has_its_times_its_error_and_no_environment_of_the_readers(
    visit: Visit, report: Make
) -> None:
    page = visit(report("original").path)
    assert page.locator("#verdict .why").inner_text() == "CUDA out of memory"
    names = page.locator("#waterfall .bar.stage title").all_text_contents()
    assert [name.split(":")[0] for name in names] == ["demux", "tmdb", "asr"]
    assert "1 min 34 s" in stage_of(page, "asr").inner_text()
    assert page.locator("#environment").count() == 0
    assert "recorded by the original" in page.locator("#quality").inner_text()


# -- the waterfall -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["demo", "failed", "crashed"])
def test_bars_are_where_their_spans_were_in_time(visit: Visit, report: Make, name: str) -> None:
    made = report(name)
    page = visit(made.path)
    unfold(page)
    spans = {span["spanId"]: span for span in Records(made.job).spans()}
    run = spans[json.loads((made.job / ".stageio" / "run.json").read_text())["root_span_id"]]
    start, end = int(run["startTimeUnixNano"]), int(run["endTimeUnixNano"])
    bars = page.evaluate(
        """() => [...document.querySelectorAll("#waterfall svg g[data-span-id]")].map((bar) => {
            const rect = bar.querySelector("rect"), track = bar.ownerSVGElement.getBoundingClientRect();
            const grid = document.querySelector("#waterfall .grid").getBoundingClientRect();
            return {id: bar.dataset.spanId, start: rect.dataset.startNs, end: rect.dataset.endNs, left: track.left,
                    x: rect.x.baseVal.value, width: rect.width.baseVal.value, whole: track.width, grid: grid.left};
        })"""
    )
    of_run = {span_id for span_id, span in spans.items() if span["traceId"] == run["traceId"]} - {run["spanId"]}
    assert {bar["id"] for bar in bars} == of_run
    for bar in bars:
        span = spans[bar["id"]]
        began, ended = int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
        assert (int(bar["start"]), int(bar["end"])) == (began, ended)
        pixels = bar["whole"] / (end - start)
        assert bar["whole"] > 400
        assert bar["left"] == pytest.approx(bar["grid"], abs=1)
        assert bar["x"] == pytest.approx((began - start) * pixels, abs=1)
        assert bar["width"] == pytest.approx((ended - began) * pixels, abs=1)


def test_what_was_waited_for_what_was_skipped_and_where_nothing_ran_look_different(visit: Visit, report: Make) -> None:
    page = visit(report("failed").path)
    unfold(page)

    def bars(css: str, where: str = "#waterfall") -> list[str]:
        return [title.split(":")[0] for title in page.locator(f"{where} .bar{css} title").all_text_contents()]

    assert bars(".stage.state-success") == ["demux"]
    assert bars(".stage.state-failed") == ["asr"]
    assert bars(".span.state-failed") == ["transcribe"]
    assert bars(".critical") == ["demux", "asr", "load model", "transcribe", "chunk 0", "chunk 1", "chunk 2"]
    assert bars(".stage.state-skipped", "#runs") == ["translation"]
    (gap,) = page.locator("#waterfall rect.gap").all()
    demux, asr = page.locator("#waterfall .bar.stage rect").all()
    box, before, after = gap.bounding_box(), demux.bounding_box(), asr.bounding_box()
    assert box["x"] == pytest.approx(before["x"] + before["width"], abs=2)
    assert box["x"] + box["width"] == pytest.approx(after["x"], abs=2)
    crashed = visit(report("crashed").path)
    assert crashed.locator("#waterfall .bar.stage.state-crashed title").text_content().startswith("asr: crashed")


def test_a_span_of_no_length_is_seen_and_one_of_another_clock_stays_on_the_page(visit: Visit, tmp_path: Path) -> None:
    clock = FixedClock()
    with fixed(clock), Pipeline("subtitles", tmp_path / "job") as run:
        with run.stage("demux"):
            pass
        with run.stage("asr") as io, io.span("by the SDK's clock"):
            clock.advance(5)
    path = tmp_path / "report.html"
    path.write_text(render(str(tmp_path / "job")), encoding="utf-8")
    page = visit(path)
    tracks = page.locator("#waterfall .row svg.track").all()
    assert len(tracks) == 3
    for track in tracks:
        rect, box = track.locator("rect").bounding_box(), track.bounding_box()
        assert rect["width"] > 0
        assert rect["x"] >= box["x"] - 1.5
        assert rect["x"] + rect["width"] <= box["x"] + box["width"] + 1.5


def test_earlier_runs_have_a_waterfall_of_their_own(visit: Visit, report: Make) -> None:
    page = visit(report("failed").path)
    (summary,) = page.locator("#runs summary").all()
    assert "run 1" in summary.inner_text()
    summary.click()
    assert page.locator("#runs .bar.stage").count() == 4


# -- a stage -----------------------------------------------------------------------------------------------------------


def test_a_failed_stage_has_what_one_needs_to_know(visit: Visit, report: Make) -> None:
    made = report("failed")
    page = visit(made.path)
    stage = stage_of(page, "asr")
    text = stage.inner_text()
    assert "language not given" in text
    assert "the first 30 s are silence" in text
    assert "from: MemoryError: CUDA out of memory" in text
    assert "01_demux/audio.wav" in text
    changes = [row.split("\t") for row in stage.locator("table tbody tr").all_inner_texts()]
    assert ["config model", "medium", "large-v3"] in changes
    assert ["config beam_size", "5", "10"] in changes
    folded = stage.locator("pre")
    assert not folded.is_visible()
    stage.get_by_text("Traceback, ends with").click()
    assert "The above exception was the direct cause" in folded.inner_text()
    assert "[redacted]" in text
    assert "sk-live" not in made.html


def test_another_version_is_among_what_is_different_from_the_last_success(tmp_path: Path) -> None:
    job = tmp_path / "job"
    report_jobs.failed(job)
    journal = job / ".stageio" / "spool" / "asr.1.logs.jsonl"
    newer = '"telemetry.sdk.version","value":{"stringValue":"'
    text = journal.read_text(encoding="utf-8")
    assert newer in text
    journal.write_text(text.replace(newer, f"{newer}0."), encoding="utf-8")
    assert "<td>version <code>telemetry.sdk.version</code></td>" in render(str(job))


def test_the_log_is_filtered_by_level_and_by_search(visit: Visit, report: Make) -> None:
    page = visit(report("failed").path)
    stage = stage_of(page, "asr")

    def shown() -> list[str]:
        rows = stage.locator(".log-row:not([hidden])").all()
        assert all(row.is_visible() for row in rows)
        assert not any(row.is_visible() for row in stage.locator(".log-row[hidden]").all())
        return [row.inner_text().split("\n")[2] for row in rows]

    level, search, said = (
        stage.locator("select.level"),
        stage.locator("input[type=search].search"),
        stage.locator("output"),
    )
    everything = shown()
    assert "reading weights" in everything
    assert said.inner_text() == ""
    level.select_option("INFO")
    assert "reading weights" not in shown()
    assert "chunk 0 of 41" in shown()
    level.select_option("WARNING")
    assert "language not given, detecting it" in shown()
    assert "chunk 0 of 41" not in shown()
    level.select_option("ERROR")
    assert "the device is full" in shown()
    assert "language not given, detecting it" not in shown()
    level.select_option("DEBUG")
    search.fill("CHUNK 1 of")
    assert set(shown()) == {"chunk 1 of 41"}
    assert said.inner_text() == f"{len(shown())} of {len(everything)} records"
    search.fill("/chunk [02] of/")
    assert set(shown()) == {"chunk 0 of 41", "chunk 2 of 41"}
    level.select_option("ERROR")
    assert shown() == []
    search.fill("/chunk [/")  # no regular expression yet: text
    assert shown() == []
    search.fill("")
    level.select_option("DEBUG")
    assert shown() == everything


def test_a_report_is_read_without_a_mouse(visit: Visit, report: Make) -> None:
    page = visit(report("failed").path)
    demux = stage_of(page, "demux").locator(":scope > details")
    assert demux.get_attribute("open") is None
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('.stage')?.dataset.stage") == "demux":
            break
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    assert demux.get_attribute("open") is not None
    reached = []
    while page.evaluate("document.activeElement.closest('.stage')?.dataset.stage") == "demux":
        reached.append(page.evaluate("document.activeElement.className || document.activeElement.tagName"))
        page.keyboard.press("Tab")
    assert reached[0] == "SUMMARY"
    assert [one for one in reached if one in ("level", "search", "log")] == ["level", "search", "log"]


def test_a_bar_leads_to_its_stage(visit: Visit, report: Make) -> None:
    page = visit(report("failed").path)
    page.locator("#waterfall .row a").first.click()
    assert stage_of(page, "demux").locator(":scope > details").get_attribute("open") is not None
    assert stage_of(page, "demux").locator(".log").is_visible()


#: How many colours a canvas has.
COLOURS = """(canvas) => {
    const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size;
}"""


# -- files, curves, trace ----------------------------------------------------------------------------------------------


def test_the_lineage_says_who_made_and_who_read_a_file(visit: Visit, report: Make) -> None:
    page = visit(report("failed").path)
    edges = page.evaluate(
        """() => {
            const svg = document.querySelector("#lineage svg"), name = (id) =>
                svg.querySelector(`.node[data-node="${id}"] title`).textContent.split(" (")[0];
            return [...svg.querySelectorAll(".edge")].map((one) =>
                [name(one.dataset.from), one.classList.contains("reads") ? "read by" : "wrote", name(one.dataset.to)]);
        }"""
    )
    assert ["demux", "wrote", "01_demux/audio.wav"] in edges
    assert ["01_demux/audio.wav", "read by", "asr"] in edges
    assert [edge for edge in edges if edge[0].endswith("film.mkv") and edge[2] == "demux"]


def test_the_files_that_are_still_there_are_counted(visit: Visit, report: Make) -> None:
    page = visit(report("failed").path)
    rows = [row.split("\t") for row in page.locator("#files tbody tr").all_inner_texts()]
    assert rows[0][:3] == ["234.4 KiB", "01_demux/audio.wav", "demux"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_curves_stand_on_the_waterfalls_axis_of_time(visit: Visit, report: Make, dark: bool) -> None:
    page = visit(report("gpu").path, dark=dark)
    charts = page.locator("#curves .chart")
    titles = charts.locator("p").all_inner_texts()
    assert [title.split(",")[0] for title in titles] == [
        "Processor",
        "Memory",
        "GPU",
        "GPU memory",
        "GPU memory of the stage",
        "GPU power",
    ]
    assert titles[2] == "GPU, % at most 100 %"
    assert titles[5] == "GPU power, W at most 350 W"
    grid = page.locator("#waterfall .grid").bounding_box()
    for chart in charts.all():
        plot = chart.locator(".u-over").bounding_box()
        assert plot["x"] == pytest.approx(grid["x"], abs=1.5)
        assert plot["width"] == pytest.approx(grid["width"], abs=1.5)
        assert chart.locator("canvas").evaluate(COLOURS) > 3
    page.set_viewport_size({"width": 900, "height": 900})
    wait_until(page, "document.querySelector('#curves canvas').getBoundingClientRect().width < 900")
    assert charts.count() == 6
    charts.first.locator(".u-over").hover(position={"x": 300, "y": 40})
    assert "asr" in charts.nth(2).locator("p").inner_text()


def test_links_lead_to_the_trace_where_an_address_is_given(
    visit: Visit, report: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = report("failed").job
    trace = json.loads((job / ".stageio" / "run.json").read_text())["trace_id"]
    monkeypatch.setenv("OTEL_STAGEIO_JAEGER_URL", "https://jaeger.example/")
    monkeypatch.setenv("OTEL_STAGEIO_GRAFANA_URL", "javascript:window.__pwned=1//")
    path = tmp_path / "report.html"
    path.write_text(render(str(job)), encoding="utf-8")
    page = visit(path)
    assert trace in page.locator("#trace").inner_text()
    (link,) = page.locator("#trace a").all()
    assert link.get_attribute("href") == f"https://jaeger.example/trace/{trace}"


# -- hostile text ------------------------------------------------------------------------------------------------------


def test_hostile_text_is_shown_and_does_nothing(visit: Visit, report: Make) -> None:
    made = report("hostile")
    page = visit(made.path)
    unfold(page)
    for control in page.locator("select.level").all():
        control.select_option("ERROR")
    page.mouse.move(400, 400)
    page.mouse.wheel(0, 100_000)
    assert page.evaluate("window.__pwned") is None
    # No element of the page comes from text: these are all that the template makes.
    assert page.locator("img, iframe, object, embed, form, base, link, textarea, template").count() == 0
    assert page.locator("script").count() == 3
    assert page.locator("style").count() == 1
    handlers = (
        "[...document.querySelectorAll('*')].flatMap((one) => one.getAttributeNames()).filter((n) => /^on/.test(n))"
    )
    assert page.evaluate(handlers) == []
    assert (
        page.evaluate("[...document.querySelectorAll('a')].filter((one) => one.protocol === 'javascript:').length") == 0
    )
    assert page.locator("[autofocus]").count() == 0
    text = page.locator("body").inner_text()
    for literal in (
        "<img src=x onerror=window.__pwned=2>",
        "{{7*7}}",
        "&lt;b&gt;",
        "javascript:window.__pwned=5",
        "\\x1b[31m",
    ):
        assert literal in text
    assert "49" not in re.findall(r"x=\" (\S+)", text)
    odd = {char for char in text if ord(char) < 32 or 0x7F <= ord(char) < 0xA0 or char in "\u202e\u2066\u2028\u2029"}
    assert odd <= {"\n", "\t"}


@pytest.mark.parametrize(
    "where", ["#verdict", "#waterfall", "#curves", "#stages", "#lineage", "#environment", "#quality"]
)
def test_hostile_text_stands_as_text_in_every_section(visit: Visit, report: Make, where: str) -> None:
    section = visit(report("hostile").path).locator(where)
    assert "__pwned" in section.evaluate("(section) => section.textContent")


# -- other ways to read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_on_paper_every_stage_is_open_and_every_log_whole(visit: Visit, report: Make, scripts: bool) -> None:
    page = visit(report("failed").path, scripts=scripts)
    page.emulate_media(media="print")
    for name, said in (("demux", "demuxing film.mkv"), ("asr", "reading weights")):
        assert stage_of(page, name).get_by_text(said, exact=True).last.is_visible()
    assert not page.locator("nav").is_visible()
    assert not page.locator("select.level").first.is_visible()
    log = stage_of(page, "asr").locator(".log")
    assert log.bounding_box()["height"] > 10 * 11
    assert log.evaluate("(log) => log.scrollHeight - log.clientHeight") <= 1 if scripts else True
    page.emulate_media(media="screen")
    if scripts:  # what was folded is folded again
        wait_until(page, "!document.querySelector('[data-stage=demux] > details').open")


def test_without_scripts_everything_is_there_but_the_curves(visit: Visit, report: Make) -> None:
    page = visit(report("demo").path, scripts=False)
    assert page.locator("h1").inner_text().endswith("subtitles succeeded")
    assert page.locator("#waterfall .bar.stage").count() == 13
    assert page.locator("#waterfall .bar.span rect").first.is_visible()
    demux = stage_of(page, "demux")
    demux.locator("summary").first.click()
    assert demux.locator(".log-row").first.is_visible()
    assert not page.locator("select.level").first.is_visible()  # it would do nothing
    assert page.locator("#curves noscript").inner_text().startswith("The curves need JavaScript")


def test_nothing_moves_for_those_who_do_not_want_it(visit: Visit, report: Make) -> None:
    style = "getComputedStyle(document.documentElement).scrollBehavior"
    moving = "[...document.querySelectorAll('*')].some((one) => getComputedStyle(one).transitionDuration !== '0s')"
    page = visit(report("failed").path, motion="reduce")
    assert page.evaluate(style) == "auto"
    assert page.evaluate(moving) is False


# -- a large job -------------------------------------------------------------------------------------------------------


def test_a_large_job_has_a_small_report_that_says_what_it_left_out(visit: Visit, report: Make) -> None:
    """Time and memory are measured by ``bench/report.py``."""
    made = report("big")
    assert made.path.stat().st_size < 5_000_000
    page = visit(made.path)
    quality = page.locator("#quality").inner_text()
    total, kept = 100_000, page.locator("section.stage[data-stage=asr] .log-row").count()
    assert kept > 100
    assert f"asr: {total - kept:,} of {total:,} log records are not shown here; they are in 06_asr/stage.log" in quality
    assert re.search(
        r"asr: 19,\d{3} shorter spans not drawn; all of them are in \.stageio/spool/asr\.1\.spans\.jsonl", quality
    )
    assert re.search(
        r"source_separation: 4,9\d\d files not listed here, see 04_source_separation/manifest\.json", quality
    )
    stage_of(page, "asr").locator("summary").first.click()
    log = stage_of(page, "asr").locator(".log").inner_text()
    assert "chunk 0 decoded" in log
    assert "chunk 99999 decoded" in log
    assert "records left out here" in log
    assert stage_of(page, "asr").locator(".log-row[data-level=ERROR]").count() == 20  # errors and warnings stay


# -- the command, and what comes along ---------------------------------------------------------------------------------


def test_the_command_writes_a_file_where_it_is_told_to(report: Make, tmp_path: Path) -> None:
    job = report("failed").job
    done = run_command(cli("report", job), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{job / 'report.html'}  (")
    elsewhere = tmp_path / "a.html"
    assert run_command(cli("report", job, "-o", elsewhere), cwd=tmp_path).returncode == 0
    assert elsewhere.read_text(encoding="utf-8").startswith("<!doctype html>")
    done = run_command(cli("report", job, "-o", "-"), cwd=tmp_path)
    assert done.stdout.startswith("<!doctype html>")
    assert done.stdout.rstrip().endswith("</html>")
    for wrong in (("report", tmp_path / "none"), ("report", job, "-o", tmp_path / "none" / "a.html")):
        done = run_command(cli(*wrong), cwd=tmp_path)
        assert done.returncode == 1
        assert "Traceback" not in done.stdout + done.stderr


def test_a_report_changes_nothing_of_the_job_but_itself(report: Make) -> None:
    job = report("original").job
    before = {path: path.stat().st_mtime_ns for path in job.rglob("*") if path.name != "report.html" and path.is_file()}
    render(str(job))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not (job / ".stageio").exists()


def test_uplot_is_what_its_makers_published() -> None:
    readme = (VENDOR / "README.md").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"\| `(.+?)` \| `([0-9a-f]{64})` \|", readme))
    assert pinned == {
        "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
        "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
        "LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    }
    assert {path.name for path in VENDOR.iterdir()} == {*pinned, "README.md"}
    for name, digest in pinned.items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == digest


def test_the_reports_own_script_is_small_and_needs_no_build() -> None:
    script = (VENDOR.parents[1] / "report.js").read_text(encoding="utf-8")
    assert len(script) < 16_000
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script)
