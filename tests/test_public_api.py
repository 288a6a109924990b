"""The public face: which names there are, how they are called, and that importing them does nothing."""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from api_snapshot import SNAPSHOT, snapshot

import otel_stageio
from otel_stageio import (
    Manifest,
    ManifestError,
    Pipeline,
    RunRecord,
    StageFailed,
    StageIO,
    StageManifest,
    begin_run,
    end_run,
    join_run,
    recover,
    stage,
)

NAMES = [
    "Manifest",
    "ManifestError",
    "Pipeline",
    "RunRecord",
    "StageFailed",
    "StageIO",
    "StageManifest",
    "StagesRunning",
    "__version__",
    "begin_run",
    "end_run",
    "join_run",
    "recover",
    "stage",
]
#: What a stage's environment pays for only when it is used. (psutil is not among them: the SDK's resources import it.)
HEAVY = (
    "grpc", "requests", "urllib3", "opentelemetry.exporter", "opentelemetry.proto", "google.protobuf", "pydantic",
    "typer", "rich", "jinja2", "asyncio", "numpy", "pytest", "hypothesis",
)  # fmt: skip


def interpreter(source: str, cwd: Path, **env: str) -> Any:
    """What a fresh interpreter's ``answer`` is after running ``source``; warnings are errors there."""
    code = f"{textwrap.dedent(source)}\nimport json\nprint(json.dumps(answer))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=cwd,
        env={"PATH": "", "HOME": str(cwd), "OTEL_STAGEIO_CONSOLE": "off", "PYTHONPATH": str(package_root()), **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


def package_root() -> Path:
    return Path(otel_stageio.__file__).parents[1]


# -- names -----------------------------------------------------------------------------------------------------------


def test_the_names_are_these() -> None:
    assert otel_stageio.__all__ == NAMES
    assert dir(otel_stageio) == sorted(NAMES)
    for name in NAMES:
        assert getattr(otel_stageio, name) is not None
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = otel_stageio.nothing_of_the_kind
    namespace: dict[str, Any] = {}
    exec("from otel_stageio import *", namespace)
    assert set(NAMES) <= set(namespace)


def test_every_name_has_a_docstring() -> None:
    for name in NAMES:
        if name != "__version__":
            assert (getattr(otel_stageio, name).__doc__ or "").strip(), name
    for cls in (StageIO, Pipeline, StageManifest):
        for name, member in inspect.getmembers(cls, inspect.isfunction):
            undocumented = {
                "add_config",
                "set_resources",
                "add_warning",
                "add_output",
                "add_intermediate",
                "set_config",
            }
            if not name.startswith("_") and member.__qualname__.startswith(("StageIO.", "Pipeline.")):
                assert member.__doc__ or name in undocumented, member.__qualname__


def test_the_package_is_typed_and_says_its_version() -> None:
    assert (Path(otel_stageio.__file__).parent / "py.typed").exists()
    assert otel_stageio.__version__.count(".") == 2


def test_exceptions_are_exceptions() -> None:
    assert issubclass(StageFailed, Exception)
    assert issubclass(ManifestError, Exception)


# -- signatures ------------------------------------------------------------------------------------------------------

#: As DESIGN §8 and the original's contract have them. ``/`` and annotations are left out.
SIGNATURES = {
    StageIO: "(stage_name, output_base=None, enable_manifest=True, *, attributes=None, capture_logging=None)",
    StageIO.get_stage_logger: "(self, log_level='INFO')",
    StageIO.track_input: "(self, file_path, file_type='file', **metadata)",
    StageIO.track_output: "(self, file_path, file_type='file', **metadata)",
    StageIO.track_intermediate: "(self, file_path, retained=False, reason='')",
    StageIO.add_config: "(self, key, value)",
    StageIO.set_config: "(self, config_dict)",
    StageIO.set_resources: "(self, **resources)",
    StageIO.add_warning: "(self, message)",
    StageIO.add_error: "(self, message, exception=None)",
    StageIO.event: "(self, name, **attributes)",
    StageIO.progress: "(self, done, total=None, unit='')",
    StageIO.span: "(self, name, **attributes)",
    StageIO.skip: "(self, reason)",
    StageIO.finalize: "(self, status='success', save_manifest=True, **kwargs)",
    StageIO.finalize_stage_manifest: "(self, exit_code=0, **kwargs)",
    StageIO.get_input_path: "(self, filename, from_stage=None, required=False)",
    StageIO.get_output_path: "(self, filename)",
    StageIO.save_json: "(self, data, filename)",
    StageIO.load_json: "(self, filename, from_stage=None)",
    StageIO.save_metadata: "(self, metadata)",
    StageIO.load_metadata: "(self, from_stage=None)",
    StageIO.get_log_path: "(self, timestamp=None)",
    StageIO.copy_to_base: "(self, filename)",
    StageIO.get_all_inputs: "(self)",
    StageIO.compute_hash: "(self, file_path)",
    Pipeline: "(name, job_dir, *, stages=None, attributes=None, resume=False)",
    Pipeline.command: (
        "(self, stage, argv, *, timeout=None, env=None, cwd=None, check=True, resume=None, inputs=(), outputs=(), "
        "code=None)"
    ),
    Manifest.load: "(path)",
    RunRecord.load: "(job_dir)",
    begin_run: "(name, job_dir, *, stages=(), attributes=None)",
    join_run: "(environment, *, alone=False)",
    end_run: "(job_dir, status=None, *, dead=None)",
    recover: "(job_dir, *, lost_after=600.0, dead=None)",
    stage: "(name, output_base=None, enable_manifest=True, *, attributes=None, capture_logging=None)",
    StageManifest.add_input: "(self, file_path, file_type='file', **metadata)",
    StageManifest.add_output: "(self, file_path, file_type='file', **metadata)",
    StageManifest.add_intermediate: "(self, file_path, retained=False, reason='')",
    StageManifest.finalize: "(self, status='success', **kwargs)",
    StageManifest.save: "(self, path)",
    StageManifest.load: "(self, path)",
    StageManifest.to_dict: "(self)",
}


@pytest.mark.parametrize("function", SIGNATURES, ids=lambda function: function.__qualname__)
def test_how_it_is_called(function: Any) -> None:
    signature = inspect.signature(function)
    bare = signature.replace(
        parameters=[p.replace(annotation=p.empty) for p in signature.parameters.values()],
        return_annotation=signature.empty,
    )
    assert str(bare).replace("/, ", "") == SIGNATURES[function]


CHANGED = """
The public API is not what tests/api_snapshot.txt says (- was, + is).
Something new, or a new parameter with a default: python tests/api_snapshot.py, commit the file, a line in CHANGELOG.md.
Something removed or renamed, a parameter that is moved or newly required: bring it back with a DeprecationWarning;
docs/VERSIONS.md says for how long.
"""


def test_the_api_is_that_of_the_snapshot() -> None:
    was, now = SNAPSHOT.read_text(encoding="utf-8").splitlines(), snapshot().splitlines()
    if was != now:
        pytest.fail(CHANGED + "\n".join(difflib.unified_diff(was, now, "was", "is", lineterm="", n=0)), pytrace=False)


def test_what_a_stage_and_a_pipeline_show() -> None:
    shown = {name for name in dir(StageIO) if not name.startswith("_")}
    assert {"trace_id", "otel_span", "output_dir", "job_dir"} <= shown
    assert {"stage", "command", "trace_id", "attempt", "run_id"} <= {n for n in dir(Pipeline) if not n.startswith("_")}
    first, *_ = inspect.signature(StageManifest).parameters
    assert first == "stage_name"


def test_the_stage_of_a_pipeline_takes_what_a_stage_takes() -> None:
    parameters = inspect.signature(Pipeline.stage).parameters
    assert next(iter(parameters.values())).name == "self"
    assert any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())


# -- files -----------------------------------------------------------------------------------------------------------


def test_records_of_former_and_later_versions_load(tmp_path: Path) -> None:
    with Pipeline("films", tmp_path) as opened, opened.stage("asr"):
        pass
    manifest, run = tmp_path / "06_asr" / "manifest.json", tmp_path / ".stageio" / "run.json"
    for path, load in ((manifest, lambda: Manifest.load(manifest)), (run, lambda: RunRecord.load(tmp_path))):
        written = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**written, "schema_version": 99, "not_known_yet": {"a": 1}}), encoding="utf-8")
        assert load().status == "success"  # a later one
    manifest.write_text('{"stage": "asr", "status": "success", "inputs": [], "outputs": []}', encoding="utf-8")
    assert Manifest.load(manifest).schema_version is None  # the original's


# -- imports ---------------------------------------------------------------------------------------------------------


def test_importing_loads_next_to_nothing_and_touches_nothing(tmp_path: Path) -> None:
    answer = interpreter(
        """
        import sys, builtins, os
        written = []
        def audit(event, args):
            if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
                written.append(str(args[0]))
            if event in ("os.mkdir", "os.rename", "socket.connect", "subprocess.Popen", "os.fork"):
                written.append(event)
        sys.dont_write_bytecode = True
        sys.addaudithook(audit)
        before = set(sys.modules)
        import otel_stageio
        loaded = sorted(set(sys.modules) - before)
        import logging, threading, signal, atexit, warnings
        handlers, level = len(logging.getLogger().handlers), logging.getLogger().level
        loggers = sorted(logging.getLogger().manager.loggerDict)
        answer = [loaded, written, handlers, level, loggers, threading.active_count(),
                  signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, sys.excepthook is sys.__excepthook__]
        """,
        tmp_path,
    )
    loaded, written, handlers, level, loggers, threads, default_signal, default_hook = answer
    assert sorted(name for name in loaded if name.startswith("otel_stageio")) == [
        "otel_stageio",
        "otel_stageio._version",
    ]
    assert [name for name in loaded if name.split(".")[0] not in {*sys.stdlib_module_names, "otel_stageio"}] == []
    assert (written, handlers, level, loggers, threads) == ([], 0, 30, [], 1)
    assert default_signal
    assert default_hook
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "source",
    [
        "from otel_stageio import StageIO, stage",
        "from otel_stageio import StageManifest",
        "from otel_stageio import Pipeline, StageFailed",
        "from otel_stageio import recover",
        "import otel_stageio.compat",
    ],
)
def test_names_are_light_and_touch_no_global_provider(tmp_path: Path, source: str) -> None:
    loaded, provider, handlers, loggers = interpreter(
        f"""
        {source}
        import sys, logging
        from opentelemetry import trace
        from opentelemetry.trace import _TRACER_PROVIDER as provider
        loggers = [n for n in logging.getLogger().manager.loggerDict if n.startswith("stage")]
        answer = [sorted(sys.modules), provider is None, len(logging.getLogger().handlers), loggers]
        """,
        tmp_path,
    )
    assert [name for name in loaded if name.startswith(HEAVY)] == []
    assert provider
    assert (handlers, loggers) == (0, [])
    assert list(tmp_path.iterdir()) == []


def test_a_first_stage_loads_no_exporter_and_no_schema(tmp_path: Path) -> None:
    loaded, threads = interpreter(
        """
        import sys, threading
        from otel_stageio import StageIO
        with StageIO("asr", "job") as io:
            log = io.get_stage_logger()
            log.info("hello %s", "world")
            io.set_config({"model": "large-v3"})
            with io.span("transcribe", chunks=41):
                io.progress(1, 2)
            io.save_json({"text": "…"}, "segments.json")
            io.track_output(io.get_output_path("segments.json"), "transcript")
            io.add_warning("careful")
            io.event("done", n=1)
        answer = [sorted(sys.modules), [thread.name for thread in threading.enumerate()]]
        """,
        tmp_path,
    )
    assert [name for name in loaded if name.startswith(HEAVY)] == []
    assert threads == ["MainThread", "otel_stageio pulse"]
    assert json.loads((tmp_path / "job" / "06_asr" / "manifest.json").read_text())["status"] == "success"


def test_a_pipeline_of_commands_loads_neither(tmp_path: Path) -> None:
    loaded = interpreter(
        """
        import sys
        from otel_stageio import Pipeline
        with Pipeline("films", "job") as run:
            run.command("demux", [sys.executable, "-c", "print('hello')"])
            with run.stage("mux") as io:
                pass
        answer = sorted(sys.modules)
        """,
        tmp_path,
    )
    assert [name for name in loaded if name.startswith(HEAVY)] == []


def test_every_module_can_be_imported_first(tmp_path: Path) -> None:
    """No circle of imports: each module by itself, in one fresh interpreter each time it is forgotten."""
    root = package_root() / "otel_stageio"
    skipped = {"otel_stageio.testing", "otel_stageio.__main__", "otel_stageio.cli.__main__"}
    modules = sorted(
        ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
        for path in root.rglob("*.py")
    )
    failed = interpreter(
        f"""
        import importlib, sys
        answer = []
        for name in {[name for name in modules if name not in skipped]!r}:
            for loaded in [loaded for loaded in sys.modules if loaded.startswith("otel_stageio")]:
                del sys.modules[loaded]
            try:
                importlib.import_module(name)
            except Exception as error:
                answer.append(f"{{name}}: {{error!r}}")
        """,
        tmp_path,
    )
    assert failed == []


def test_lazy_names_are_the_modules_own() -> None:
    assert otel_stageio.StageIO is importlib.import_module("otel_stageio.stages.stage_io").StageIO
    assert otel_stageio.stage is importlib.import_module("otel_stageio.stages.decorator").stage
