"""Every attribute, event and variable name, spelled once.

Conventions follow OpenTelemetry semantic conventions 1.44. ``cicd.*`` and ``process.*`` are release candidates,
``file.*`` and ``artifact.*`` are in development, ``error.*`` and ``exception.*`` are stable; everything of ours is
under ``stageio.*``. Nothing outside this module spells a name, so a change upstream is a change in one place.
"""

from __future__ import annotations

from typing import NamedTuple

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
SCOPE_NAME = "otel_stageio"

# -- run and stage (release candidate) -------------------------------------------------------------------------------
PIPELINE_NAME = "cicd.pipeline.name"
PIPELINE_RUN_ID = "cicd.pipeline.run.id"
PIPELINE_RESULT = "cicd.pipeline.result"
PIPELINE_ACTION = "cicd.pipeline.action.name"
TASK_NAME = "cicd.pipeline.task.name"
TASK_RUN_ID = "cicd.pipeline.task.run.id"
TASK_RESULT = "cicd.pipeline.task.run.result"

# -- child processes (release candidate) -----------------------------------------------------------------------------
PROCESS_EXECUTABLE = "process.executable.name"
PROCESS_PID = "process.pid"
PROCESS_EXIT_CODE = "process.exit.code"

# -- where it ran (host.*, os.*: development; process.runtime.*: release candidate) ------------------------------------
HOST_NAME = "host.name"
OS_TYPE = "os.type"
RUNTIME_NAME = "process.runtime.name"
RUNTIME_VERSION = "process.runtime.version"

# -- errors (stable) -------------------------------------------------------------------------------------------------
ERROR_TYPE = "error.type"
ERROR_OTHER = "_OTHER"
EXCEPTION_TYPE = "exception.type"
EXCEPTION_MESSAGE = "exception.message"
EXCEPTION_STACKTRACE = "exception.stacktrace"

# -- tasks of Ray, as its own tracing names them (development) ---------------------------------------------------------
RAY_NODE_ID = "ray.node_id"
RAY_TASK_ID = "ray.task_id"
RAY_WORKER_ID = "ray.worker_id"

# -- files (development) ---------------------------------------------------------------------------------------------
FILE_NAME = "file.name"
FILE_PATH = "file.path"
FILE_EXTENSION = "file.extension"
FILE_SIZE = "file.size"
ARTIFACT_HASH = "artifact.hash"

# -- metrics (process.*: release candidate; hw.*, cpu.*, disk.*: development) ----------------------------------------


class Metric(NamedTuple):
    """``kind`` is ``counter``, ``updowncounter`` or ``gauge``."""

    name: str
    unit: str
    kind: str


PROCESS_CPU_TIME = Metric("process.cpu.time", "s", "counter")
PROCESS_CPU_UTILIZATION = Metric("process.cpu.utilization", "1", "gauge")
PROCESS_MEMORY_USAGE = Metric("process.memory.usage", "By", "updowncounter")
PROCESS_THREAD_COUNT = Metric("process.thread.count", "{thread}", "updowncounter")
PROCESS_DISK_IO = Metric("process.disk.io", "By", "counter")
HW_GPU_UTILIZATION = Metric("hw.gpu.utilization", "1", "gauge")
HW_GPU_MEMORY_USAGE = Metric("hw.gpu.memory.usage", "By", "updowncounter")
HW_GPU_MEMORY_LIMIT = Metric("hw.gpu.memory.limit", "By", "updowncounter")
HW_GPU_MEMORY_UTILIZATION = Metric("hw.gpu.memory.utilization", "1", "gauge")
HW_ENERGY = Metric("hw.energy", "J", "counter")
HW_POWER = Metric("hw.power", "W", "gauge")
HW_TEMPERATURE = Metric("hw.temperature", "Cel", "gauge")
#: There is no convention for what of a GPU's memory a process has.
GPU_PROCESS_MEMORY_USAGE = Metric("stageio.gpu.process.memory.usage", "By", "updowncounter")
CPU_MODE = "cpu.mode"
DISK_IO_DIRECTION = "disk.io.direction"
HW_ID = "hw.id"
HW_NAME = "hw.name"
HW_TYPE = "hw.type"
HW_VENDOR = "hw.vendor"
HW_DRIVER_VERSION = "hw.driver_version"

# -- log records -----------------------------------------------------------------------------------------------------
LOGGER_NAME = "stageio.logger"

# -- ours: identity --------------------------------------------------------------------------------------------------
STAGE_NUMBER = "stageio.stage.index"
STAGE_ATTEMPT = "stageio.stage.attempt"
STAGE_STATUS = "stageio.stage.status"
JOB_ATTEMPT = "stageio.job.attempt"
RUN_IMPLICIT = "stageio.run.implicit"
DURATION = "stageio.duration"
SKIP_REASON = "stageio.skip.reason"
CAUSE = "stageio.cause"
SIGNAL = "stageio.signal"
OOM = "stageio.oom"
MEMORY_PEAK = "stageio.process.memory.peak"
CPU_SECONDS = "stageio.process.cpu.time"
GPU_MEMORY_PEAK = "stageio.gpu.memory.peak"
GPU_PROCESS_MEMORY_PEAK = "stageio.gpu.process.memory.peak"
GPU_ENERGY = "stageio.gpu.energy"
GPU_BUSY = "stageio.gpu.busy_time"
REALTIME_FACTOR = "stageio.realtime_factor"
MEDIA_DURATION = "media.duration"
#: Key under a manifest's ``resources`` -> attribute of heartbeats and of the stage's span. Each only grows.
USED = {
    "peak_memory_bytes": MEMORY_PEAK,
    "cpu_seconds": CPU_SECONDS,
    "disk_read_bytes": "stageio.process.disk.read",
    "disk_written_bytes": "stageio.process.disk.written",
    "gpu_memory_peak_bytes": GPU_MEMORY_PEAK,
    "gpu_process_memory_peak_bytes": GPU_PROCESS_MEMORY_PEAK,
    "gpu_energy_joules": GPU_ENERGY,
    "gpu_busy_seconds": GPU_BUSY,
}

# -- ours: what a stage did ------------------------------------------------------------------------------------------
ARTIFACT_ROLE = "stageio.artifact.role"
ARTIFACT_TYPE = "stageio.artifact.type"
ARTIFACT_EXISTS = "stageio.artifact.exists"
ARTIFACT_CHANGED = "stageio.artifact.changed"
ARTIFACT_HASH_ALGORITHM = "stageio.artifact.hash.algorithm"
ARTIFACT_RETAINED = "stageio.artifact.retained"
ARTIFACT_REASON = "stageio.artifact.reason"
INPUT_COUNT = "stageio.input.count"
INPUT_BYTES = "stageio.input.bytes"
OUTPUT_COUNT = "stageio.output.count"
OUTPUT_BYTES = "stageio.output.bytes"
WARNING_COUNT = "stageio.warning.count"
ERROR_COUNT = "stageio.error.count"
CONFIG_PREFIX = "stageio.config."
CONFIG_KEYS = "stageio.config.keys"
RESOURCE_PREFIX = "stageio.resource."
LINK = "stageio.link"
RESUME_DECISION = "stageio.resume.decision"
RESUME_REASON = "stageio.resume.reason"
PROGRESS_DONE = "stageio.progress.done"
PROGRESS_TOTAL = "stageio.progress.total"
PROGRESS_UNIT = "stageio.progress.unit"

# -- ours: honesty ---------------------------------------------------------------------------------------------------
LOST_PREFIX = "stageio.lost."
REDACTIONS = "stageio.redactions"
SANITISED = "stageio.sanitised"
SPAN_EVENTS_DROPPED = "stageio.span_events.dropped"

# -- ours: the journal only. Delivery drops what begins with this: it is for the fold on this machine ------------------
LOCAL_PREFIX = "stageio.local."
LOCAL_PATH = "stageio.local.path"
LOCAL_BODY = "stageio.local.body"
LOCAL_METADATA = "stageio.local.metadata"
LOCAL_DIGEST = "stageio.local.digest"
LOCAL_RESUME = "stageio.local.resume"
LOCAL_CONFIG = "stageio.local.config"
LOCAL_RESOURCES = "stageio.local.resources"
#: What was measured of a stage, beside the numbers of :data:`USED`.
LOCAL_MEASURED = "stageio.local.measured"
LOCAL_EXTRA = "stageio.local.extra"
LOCAL_DETAIL = "stageio.local.exception.message"
LOCAL_TRACEBACK = "stageio.local.exception.stacktrace"
LOCAL_HOST = "stageio.local.host"
LOCAL_BOOT_ID = "stageio.local.boot_id"
LOCAL_LOCKED = "stageio.local.locked"
LOCAL_CLOCK_AHEAD = "stageio.local.clock_ahead"
LOCAL_OOM_KILLS = "stageio.local.oom_kills"
LOCAL_LAST_LINES = "stageio.local.last_lines"
LOCAL_NO_MANIFEST = "stageio.local.no_manifest"
LOCAL_TRACE = "stageio.local.trace"
#: On a scope: the application's own provider made these spans and its exporter sends them, so delivery does not.
LOCAL_APPLICATION_EXPORTS = "stageio.local.application_exports"

# -- event names (exception: stable) ----------------------------------------------------------------------------------
EVENT_PREFIX = "stageio."
EVENT_STARTED = "stageio.stage.started"
EVENT_ENDED = "stageio.stage.ended"
EVENT_ATTRIBUTES = "stageio.stage.attributes"
EVENT_LATE = "stageio.stage.late"
EVENT_ARTIFACT = "stageio.artifact"
EVENT_CONFIG = "stageio.config"
EVENT_RESOURCES = "stageio.resources"
EVENT_RESUME = "stageio.resume"
EVENT_WARNING = "stageio.warning"
EVENT_ERROR = "stageio.error"
EVENT_EXCEPTION = "stageio.exception"
EVENT_PROGRESS = "stageio.progress"
EVENT_HEARTBEAT = "stageio.heartbeat"
SPAN_EVENT_EXCEPTION = "exception"

# -- status words ----------------------------------------------------------------------------------------------------
#: our word -> ``cicd.pipeline.task.run.result``; ``incomplete`` (ended without saying how) has no counterpart.
RESULTS = {
    "success": "success",
    "failed": "failure",
    "skipped": "skip",
    "cancelled": "cancellation",
    "timeout": "timeout",
    "crashed": "error",
    "lost": "error",
}
STATUSES = ("running", *RESULTS, "incomplete")
GOOD_STATUSES = frozenset({"success", "skipped"})

#: Config values that may leave the machine: numbers and booleans always, text only under these keys, because a title or
#: a prompt is text as well (DESIGN §4.5).
CONFIG_TEXT_KEYS = frozenset(
    {
        "backend", "compute_type", "device", "engine", "format", "language", "method", "model", "model_name",
        "model_size", "sample_format", "source_language", "target_language", "task",
    }
)  # fmt: skip

# -- environment -----------------------------------------------------------------------------------------------------
ENV_OUTPUT_DIR = "OUTPUT_DIR"
ENV_RUN_ID = "OTEL_STAGEIO_RUN_ID"
ENV_STAGE = "OTEL_STAGEIO_STAGE"
ENV_JOB = "OTEL_STAGEIO_JOB"
ENV_CONSOLE = "OTEL_STAGEIO_CONSOLE"
ENV_REDACT = "OTEL_STAGEIO_REDACT"
ENV_PATHS = "OTEL_STAGEIO_PATHS"
ENV_SPOOL_MAX = "OTEL_STAGEIO_SPOOL_MAX"
ENV_DURABILITY = "OTEL_STAGEIO_DURABILITY"
ENV_OTLP_LEVEL = "OTEL_STAGEIO_OTLP_LEVEL"
ENV_DELIVERY = "OTEL_STAGEIO_DELIVERY"
ENV_SAMPLE_INTERVAL = "OTEL_STAGEIO_SAMPLE_INTERVAL"
ENV_EXIT_BUDGET = "OTEL_STAGEIO_EXIT_BUDGET"
ENV_SIGTERM = "OTEL_STAGEIO_SIGTERM"
ENV_HOST_ID = "OTEL_STAGEIO_HOST_ID"
ENV_DROP_IN = "OTEL_STAGEIO_DROP_IN"
ENV_DIGEST = "OTEL_STAGEIO_DIGEST"
ENV_DIGEST_BUDGET = "OTEL_STAGEIO_DIGEST_BUDGET"
ENV_RESUME = "OTEL_STAGEIO_RESUME"
ENV_FORCE = "OTEL_STAGEIO_FORCE"
ENV_FROM = "OTEL_STAGEIO_FROM"
ENV_JAEGER_URL = "OTEL_STAGEIO_JAEGER_URL"
ENV_GRAFANA_URL = "OTEL_STAGEIO_GRAFANA_URL"
ENV_TRACEPARENT = "TRACEPARENT"
ENV_TRACESTATE = "TRACESTATE"
