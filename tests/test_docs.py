"""What the documentation says is run: every block of every page, its tables of names, and docstring examples."""

from __future__ import annotations

import ast
import doctest
import importlib
import json
import os
import re
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pages
import pytest
import report_jobs
from conftest import IN_CI
from helpers import run_python, write_script
from ray_cluster import SETTINGS as RAY_SETTINGS
from receiver import Receiver
from stack import free_ports

from collector.build.build import cache
from collector.native import COLLECTOR, JAEGER, ports
from docs.generated import expand
from otel_stageio import Pipeline, StageIO, semconv
from otel_stageio.testing import FixedClock, SequentialIds, fixed

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [
    README,
    *sorted((ROOT / "docs").rglob("*.md")),
    ROOT / "collector" / "README.md",
    ROOT / "collector" / "SIZING.md",
    ROOT / "examples" / "subtitles" / "README.md",
]
NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]

#: Every block that is not run, by its page and its reason. Add one only for what cannot be run here.
NOT_RUN = Counter({
    ("README.md", "a section of .ci/run"): 1,
    ("README.md", "docs/TUTORIAL.md runs it"): 1,
    ("docs/PERFORMANCE.md", "takes half an hour"): 1,
    ("docs/SCHEDULERS.md", "Slurm; tests/test_schedulers.py runs it with a stand-in"): 1,
    ("docs/SCHEDULERS.md", "a cluster"): 1,
    ("docs/SCHEDULERS.md", "tests/test_schedulers_prefect.py does, in its environment"): 1,
    ("docs/SCHEDULERS.md", "tests/test_schedulers.py runs them"): 1,
    ("docs/TUTORIAL.md", "needs a container engine"): 1,
    ("docs/TUTORIAL.md", "needs a network"): 1,
    ("docs/howto/docker.md", "needs a container engine"): 1,
    ("docs/howto/gpu.md", "needs a network"): 1,
    ("docs/howto/offline.md", "needs a network"): 2,
    ("docs/howto/production.md", "needs systemd"): 2,
    ("examples/subtitles/README.md", "a section of .ci/run"): 1,
})  # fmt: skip


# -- what pages take for granted -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's job, run once for all pages."""
    for module in ("av", "numpy", "pocketsphinx", "scipy", "srt"):
        pytest.importorskip(module, reason=f"the demo needs {module}: pip install -e '.[demo]'")
    job = tmp_path_factory.mktemp("demo") / "demo"
    report_jobs.demo(job)
    return job


class LineageServer:
    """Takes OpenLineage events, as Marquez would."""

    def __enter__(self) -> LineageServer:
        received = self.events = []  # type: ignore[var-annotated]

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/api/v1/lineage"
                received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(201)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def with_old_script(where: Path) -> None:
    """A stage script of the original's."""
    script = "import sys\nfrom shared.stage_utils import StageIO\nStageIO('asr', output_base=sys.argv[2]).finalize()\n"
    (where / "scripts").mkdir()
    (where / "scripts" / "asr.py").write_text(script)


def with_pipeline(where: Path) -> None:
    (where / "pipeline.sh").write_text("#!/bin/sh\notel-stageio run out/job1 --stage asr -- true\n")
    (where / "pipeline.sh").chmod(0o755)


def with_job(where: Path) -> None:
    with StageIO("asr", where / "out" / "job1") as io:
        io.track_output(io.save_json([], "segments.json"), "transcript")


#: The ports of the tutorial's stack.
STACK = ports((*JAEGER, *COLLECTOR))


def with_repository(where: Path) -> dict[str, str]:
    """A clone, as far as ``make stack-native`` looks at it; the stack's ports, which must be free here."""
    if not (ROOT / ".venv" / ".ready").exists():
        reason = "make stack-native needs .venv: make setup"
        pytest.fail(reason) if IN_CI else pytest.skip(reason)
    shutil.copytree(ROOT / "collector", where / "collector")
    (where / "requirements").mkdir()
    for name in ("pyproject.toml", "requirements/dev.txt"):  # so old that make finds nothing to install
        (where / name).touch()
        os.utime(where / name, (0, 0))
    for name in ("Makefile", ".venv", "otel_stageio"):
        (where / name).symlink_to(ROOT / name)
    return {name: str(port) for name, port in zip(STACK, free_ports(len(STACK)), strict=True)}


#: Stands in for a container engine: the command gets the variables that were named, and no others.
DOCKER = """\
#!{python}
import os, sys
words = sys.argv[1:]
assert words.pop(0) == "run" and words.pop(0) == "--rm"
named = {{}}
while words[0].startswith("--"):
    option, value = words.pop(0), words.pop(0)
    if option == "--env":
        named[value] = os.environ[value]
    elif option == "--workdir":
        os.chdir(value)
image, *argv = words
os.execvpe(argv[0], argv, {{**named, "PATH": os.environ["PATH"], "PYTHONPATH": {root!r}}})
"""


def with_docker(where: Path) -> None:
    (where / "docker").write_text(DOCKER.format(python=sys.executable, root=str(ROOT)))
    (where / "docker").chmod(0o755)


def with_collector(where: Path) -> None:
    shutil.copytree(ROOT / "collector", where / "collector")


#: What must be there before a page's first block, beside ``out/demo``.
BEFORE: dict[str, Callable[[Path], None]] = {
    "README.md": with_old_script,
    "docs/RESUME.md": with_pipeline,
    "docs/EXPORTS.md": with_job,
    "docs/howto/docker.md": with_docker,
    "docs/howto/production.md": with_collector,
}
#: Pages whose reader has set up an endpoint in a block that is not run.
ENDPOINT = ("README.md", "collector/README.md")


@pytest.fixture
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], pages.Session]]:
    """A reader's directory, with ``out/demo`` if the page speaks of it, and receivers of what the page sends."""
    opened: list[pages.Session] = []
    with Receiver() as receiver, LineageServer() as lineage:

        def open_session(name: str) -> pages.Session:
            where = tmp_path / "reader"
            where.mkdir()
            if "out/demo" in (ROOT / name).read_text(encoding="utf-8"):
                shutil.copytree(request.getfixturevalue("demo"), where / "out" / "demo")
            BEFORE.get(name, lambda _: None)(where)
            changes = {"OPENLINEAGE_URL": lineage.url, "HOME": str(tmp_path), "OTEL_STAGEIO_CONSOLE": "off"}
            changes |= RAY_SETTINGS
            changes["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), str(where), os.environ["PATH"]])
            instead = {"http://localhost:4318": receiver.url}
            if name in ENDPOINT:
                changes["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.url
            if name == "docs/TUTORIAL.md":
                request.getfixturevalue("binaries")
                stack = with_repository(where)
                changes |= {"OTEL_STAGEIO_CONSOLE": "auto", "OTEL_STAGEIO_BUILD_CACHE": str(cache()), **stack}
                instead = {f"localhost:{usual}": f"localhost:{stack[variable]}" for variable, usual in STACK.items()}
            one = pages.Session(where, changes, instead)
            opened.append(one)
            return one

        yield open_session
        for one in opened:
            one.close()


# -- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_block_of_a_page_runs(name: str, session: Callable[[str], pages.Session]) -> None:
    blocks = [block for block in pages.blocks(ROOT / name) if not block.not_run]
    if any(block.language in (*pages.RUN, "output", *pages.DATA) for block in blocks):
        reader = session(name)
        for block in blocks:
            reader.run(block)


@pytest.mark.parametrize("name", NAMES)
def test_every_block_says_what_it_is(name: str) -> None:
    for block in pages.blocks(ROOT / name):
        assert block.language in (*pages.RUN, *pages.DATA, *pages.PLAIN), f"{block.where}: ```{block.language}"
        assert block.language not in ("dockerfile", "ini") or block.not_run or block.file, block.where
    marks = re.findall(r"<!-- (?:not run: .+|runs until stopped) -->\n *(```)?", (ROOT / name).read_text())
    assert all(marks), "a mark stands right before its block"


def test_what_is_not_run_is_known_and_counted() -> None:
    found = Counter((block.page, block.not_run) for path in PAGES for block in pages.blocks(path) if block.not_run)
    assert found == NOT_RUN


def test_links_lead_somewhere_and_those_to_elsewhere_are_well_formed() -> None:
    """In the repository; what the site makes of them, the strict build sees."""
    for path in (*PAGES, ROOT / "CONTRIBUTING.md"):
        text = re.sub(r"^```.*?^```", "", expand(path.read_text(encoding="utf-8")), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)\s]+)\)", text):
            if re.match(r"https?:", target):
                assert re.fullmatch(r"https?://[\w.-]+(:\d+)?(/[\w./~%#?=&+-]*)?", target), target
                continue
            place, _, anchor = target.partition("#")
            aim = (path.parent / place).resolve() if place else path
            assert aim.exists(), f"{path.name}: {target}"
            if anchor and aim.suffix == ".md":
                assert anchor in anchors(aim), f"{path.name}: {target}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", expand(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


# -- the guide's stages before and after -----------------------------------------------------------------------------

BEFORE_AND_AFTER = """
    import importlib, sys
    from pathlib import Path
    from examples.subtitles.__main__ import CLIP
    from examples.subtitles.stages import hallucination_removal
    from otel_stageio import StageIO

    job = Path(sys.argv[1])
    for name in ("demux", "tmdb", "source_separation", "pyannote_vad", "asr", "", "alignment", "lyrics_detection"):
        if name:
            stage = importlib.import_module(f"examples.subtitles.before.{name}")
            stage.run_stage(job, *([CLIP] if name == "demux" else []))
        else:  # one that has been migrated already, between those that have not
            with StageIO("hallucination_removal", job) as io:
                hallucination_removal.run_stage(io)
"""


def test_the_guides_stages_did_the_same_work_before(demo: Path, tmp_path: Path) -> None:
    job = tmp_path / "before"
    done = run_python(write_script(tmp_path / "before.py", BEFORE_AND_AFTER), job, OTEL_STAGEIO_CONSOLE="off",
                      PYTHONWARNINGS="ignore")  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    compared = 0
    for directory in ("01_demux", "02_tmdb", "05_pyannote_vad", "06_asr", "07_alignment", "08_lyrics_detection"):
        for before in (job / directory).glob("*.json"):
            if before.name != "manifest.json":
                after = demo / directory / before.name
                assert json.loads(before.read_text()) == json.loads(after.read_text()), before.name
                compared += 1
    for sound in ("01_demux/audio.wav", "04_source_separation/vocals.wav", "04_source_separation/accompaniment.wav"):
        assert (job / sound).read_bytes() == (demo / sound).read_bytes()
    assert compared >= 8


def test_the_summary_counts_their_lines() -> None:
    summary = (ROOT / "docs" / "STAGE_LOGGING_SUMMARY.md").read_text(encoding="utf-8")
    names = {"asr": "ASR", "alignment": "Alignment", "lyrics_detection": "Lyrics detection", "demux": "Demux",
             "tmdb": "TMDB", "source_separation": "Source separation", "pyannote_vad": "VAD"}  # fmt: skip
    for name, title in names.items():
        before, after = (
            lines_of(ROOT / "examples" / "subtitles" / place / f"{name}.py") for place in ("before", "stages")
        )
        assert f"| {title} | {before} | {after} |" in summary
    homemade = (ROOT / "examples" / "subtitles" / "before" / "homemade.py").read_text(encoding="utf-8")
    assert f"that they share | {len(homemade.splitlines())} | none |" in summary


def lines_of(path: Path) -> int:
    body = ast.parse(path.read_text(encoding="utf-8")).body
    shown = [node for node in body if getattr(node, "name", "") in ("run_stage", "with_pocketsphinx")]
    return sum((node.end_lineno or 0) - node.lineno + 1 for node in shown)


# -- names -----------------------------------------------------------------------------------------------------------


def test_every_variable_in_the_readme_is_one_that_the_library_reads() -> None:
    ours = {value for name, value in vars(semconv).items() if name.startswith("ENV_")}
    for path in PAGES:
        named = set(re.findall(r"\b(OTEL_STAGEIO_[A-Z_]+[A-Z])\b", path.read_text(encoding="utf-8")))
        assert named <= ours, path


def test_every_test_that_a_page_names_exists() -> None:
    for path in PAGES:
        text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        for name in re.findall(r"\btest_\w+\.py\b", text):
            assert list(ROOT.glob(f"**/{name}")), f"{path.name}: {name}"


@pytest.mark.parametrize(
    "module",
    [
        "capture.redaction", "capture.text", "delivery.settings", "layout", "pipeline.handover", "pipeline.pipeline",
        "record.manifest", "recovery.recover", "runs.run_record", "sinks.spool", "stages.decorator", "stages.stage_io",
        "stages.stage_manifest",
    ],
)  # fmt: skip
def test_docstring_examples_are_true(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTEL_STAGEIO_CONSOLE", "off")
    job = tmp_path / "job"
    with StageIO("asr", job):
        pass
    loaded = importlib.import_module(f"otel_stageio.{module}")
    names: dict[str, Any] = {**vars(loaded), "job": job, "Pipeline": Pipeline, "StageIO": StageIO, "fixed": fixed,
                             "FixedClock": FixedClock, "SequentialIds": SequentialIds}  # fmt: skip
    if module == "decorator":
        names["job"] = tmp_path / "other"
    finder = doctest.DocTestFinder(recurse=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    ran = 0
    for test in finder.find(loaded, module, globs=names):
        ran += runner.run(test).attempted
    assert ran > 0
    assert runner.failures == 0
