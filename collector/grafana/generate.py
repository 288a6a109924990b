"""Writes the dashboards: what the four have in common stands here once.

    python -m collector.grafana.generate

Grafana gets the JSON files under ``dashboards/``; the tests compare them with what this makes, and every query with
what the running stack has.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

DASHBOARDS = Path(__file__).resolve().parent / "dashboards"

Object = dict[str, Any]

CALLS = "traces_span_metrics_calls_total"
DURATION = "traces_span_metrics_duration_seconds"
#: The spans of runs, and those of stages; a step within a stage has no task name.
RUN = 'span_kind="SPAN_KIND_SERVER", cicd_pipeline_name=~"$pipeline"'
STAGE = 'span_kind="SPAN_KIND_INTERNAL", cicd_pipeline_name=~"$pipeline", cicd_pipeline_task_name!=""'
ONE_STAGE = f'{STAGE}, cicd_pipeline_task_name=~"$stage"'
#: Who cancels a run knows it; `incomplete` has no result.
BAD_RUN = 'status_code="STATUS_CODE_ERROR", error_type!="cancelled"'
BAD_STAGE = 'cicd_pipeline_task_run_result!~"success|skip|cancellation"'
#: What stages measure of themselves has the names in its scope.
MEASURED = 'otel_scope_cicd_pipeline_name=~"$pipeline", otel_scope_cicd_pipeline_task_name=~"$stage"'
#: The collector shows the last values of a stage that is over for a day: its processor time stands still.
RUNNING = (
    "and on (otel_scope_cicd_pipeline_run_id, otel_scope_cicd_pipeline_task_name) "
    "(sum by (otel_scope_cicd_pipeline_run_id, otel_scope_cicd_pipeline_task_name) "
    f"(rate(process_cpu_time_seconds_total{{{MEASURED}}}[$__rate_interval])) > 0)"
)
#: How many run on each host.
BY_STAGE = "host_name, otel_scope_cicd_pipeline_name, otel_scope_cicd_pipeline_task_name"
BY_HOST = (
    f"count by ({BY_STAGE}) (sum by ({BY_STAGE}, otel_scope_cicd_pipeline_run_id) "
    '(rate(process_cpu_time_seconds_total{otel_scope_cicd_pipeline_name=~"$pipeline", host_name=~"$host"}[5m])) > 0)'
)
RUNNING_THERE = RUNNING.replace(MEASURED, 'otel_scope_cicd_pipeline_name=~"$pipeline"')
BY_RUN = "job, otel_scope_cicd_pipeline_run_id"


# -- queries ---------------------------------------------------------------------------------------------------------


def source(kind: str) -> Object:
    return {"type": kind, "uid": kind}


def ask(expr: str, legend: str = "", **more: Any) -> Object:
    return {"datasource": source("prometheus"), "expr": expr, "legendFormat": legend, **more}


def ended(spans: str, by: str = "", over: str = "$__range") -> str:
    return f"sum{f' by ({by}) ' if by else ''}(increase({CALLS}{{{spans}}}[{over}]))"


def mean(spans: str, by: str, over: str) -> str:
    total, number = (f"sum by ({by}) (increase({DURATION}_{what}{{{spans}}}[{over}]))" for what in ("sum", "count"))
    return f"{total} / {number}"


def since_start(spans: str, by: str) -> tuple[str, str]:
    """Mean and 95th percentile. Not of the time shown: the first value of a series is no increase."""
    total, number = (f"sum by ({by}) ({DURATION}_{what}{{{spans}}})" for what in ("sum", "count"))
    return f"{total} / {number}", f"histogram_quantile(0.95, sum by (le, {by}) ({DURATION}_bucket{{{spans}}}))"


def of_collector(name: str, by: str = "instance") -> str:
    """A counter's rate. An agent's comes through the gateway, and then its name ends in ``_total``."""
    given = f'__name__=~"{name}(_total)?", instance=~"$instance"'
    return f"sum by ({by}) (rate({{{given}}}[$__rate_interval]))"


# -- links -----------------------------------------------------------------------------------------------------------


def trace_of_run() -> Object:
    """From a bar, which is a run, to its trace: the run's id is an attribute of its spans."""
    run, service = "${__field.labels.otel_scope_cicd_pipeline_run_id}", "${__field.labels.job}"
    query = {"refId": "A", "queryType": "search", "service": service, "tags": f"cicd.pipeline.run.id={run}"}
    pane = {"datasource": "jaeger", "queries": [query], "range": {"from": "${__from}", "to": "${__to}"}}
    text = quote(json.dumps({"a": pane}))
    for variable in (run, service, "${__from}", "${__to}"):
        text = text.replace(quote(variable), variable)
    return {"title": "Open its trace", "url": f"/explore?schemaVersion=1&panes={text}"}


def to(dashboard: str, title: str, **variables: str) -> Object:
    given = "&".join(f"var-{name}={value}" for name, value in variables.items())
    return {"title": title, "url": f"/d/otel-stageio-{dashboard}?{given}&${{__url_time_range}}"}


# -- panels ----------------------------------------------------------------------------------------------------------


def panel(kind: str, title: str, size: tuple[int, int], *targets: Object, unit: str = "", **more: Any) -> Object:
    """``more``: ``description``, ``links`` (of its values), ``custom``, ``red_from``, ``options``, ``overrides``."""
    defaults: Object = {key: more.pop(key) for key in ("links", "custom", "min", "max", "decimals") if key in more}
    if unit:
        defaults["unit"] = unit
    if "red_from" in more:
        steps = [{"color": "green", "value": None}, {"color": "red", "value": more.pop("red_from")}]
        defaults["thresholds"] = {"mode": "absolute", "steps": steps}
    return {
        "title": title,
        "type": kind,
        "gridPos": {"w": size[0], "h": size[1]},
        "datasource": targets[0]["datasource"],
        "targets": [{"refId": chr(ord("A") + number), **target} for number, target in enumerate(targets)],
        "fieldConfig": {"defaults": defaults, "overrides": more.pop("overrides", [])},
        **more,
    }


def number(title: str, expr: str, **more: Any) -> Object:
    return panel("stat", title, (6, 4), ask(expr), **{"decimals": 0, **more})


def lines(title: str, *targets: Object, **more: Any) -> Object:
    return panel("timeseries", title, (12, 8), *targets, **{"min": 0, **more})


def dots(title: str, *targets: Object, **more: Any) -> Object:
    """Each dot beside the means is one span, an exemplar, and opens its trace."""
    custom = {"drawStyle": "points", "pointSize": 6}
    asked = [{**target, "exemplar": True} for target in targets]
    return panel("timeseries", title, (12, 9), *asked, unit="s", custom=custom, **more)


def bars(title: str, *targets: Object, **more: Any) -> Object:
    custom = {"drawStyle": "bars", "fillOpacity": 80, "stacking": {"mode": "normal"}}
    return panel("timeseries", title, (12, 9), *targets, custom=custom, **more)


def per_run(title: str, expr: str, unit: str) -> Object:
    """A bar for each of the runs that used most."""
    most = ask(f"topk(20, {expr})", "{{otel_scope_cicd_pipeline_run_id}}", instant=True)
    options = {"orientation": "horizontal", "displayMode": "basic", "reduceOptions": {"calcs": ["lastNotNull"]}}
    description = "Of the time shown. A bar opens the trace of its run."
    return panel(
        "bargauge", title, (12, 9), most, unit=unit, links=[trace_of_run()], options=options, description=description
    )


def table(title: str, names: dict[str, str], columns: dict[str, str], link: Object, **more: Any) -> Object:
    """``names``: label -> heading of the first columns; ``columns``: heading -> query."""
    targets = [ask(expr, instant=True, format="table") for expr in columns.values()]
    values = {f"Value #{chr(ord('A') + place)}": heading for place, heading in enumerate(columns)}
    renamed = {**names, **values}
    order = {name: place for place, name in enumerate(renamed)}
    organize = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": renamed}

    def override(headings: list[str], **properties: Any) -> Object:
        return {
            "matcher": {"id": "byRegexp", "options": "|".join(headings)},
            "properties": [{"id": key, "value": value} for key, value in properties.items()],
        }

    overrides = [
        override(["Mean", "95th percentile"], unit="s"),
        override(["Ended", "Failed"], decimals=0),
        override(list(names.values())[-1:], links=[link]),
    ]
    changes = [{"id": "merge", "options": {}}, {"id": "organize", "options": organize}]
    return panel("table", title, (24, 9), *targets, overrides=overrides, transformations=changes, **more)


def logs(title: str, query: str, **more: Any) -> Object:
    options = {"showTime": True, "wrapLogMessage": True, "enableLogDetails": True, "sortOrder": "Descending"}
    target = {"datasource": source("loki"), "expr": query, "queryType": "range"}
    return panel("logs", title, (12, 10), target, options=options, **more)


def traces(**more: Any) -> Object:
    target = {"datasource": source("jaeger"), "queryType": "search", "service": "otel_stageio", "limit": 20, **more}
    about = "Of the service otel_stageio, which is what a stage is unless OTEL_SERVICE_NAME says otherwise."
    return panel("table", "Latest traces", (12, 10), target, description=about)


# -- dashboards ------------------------------------------------------------------------------------------------------


def variable(name: str, label: str, query: str, *, several: bool) -> Object:
    every = {"includeAll": True, "multi": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}}
    return {
        "name": name, "label": label, "type": "query", "datasource": source("prometheus"),
        "query": {"query": query, "refId": name}, "definition": query, "refresh": 2, "sort": 1,
        **(every if several else {}),
    }  # fmt: skip


def dashboard(name: str, title: str, variables: list[Object], panels: list[Object]) -> Object:
    """The panels from left to right, and on in the next row where one has no room."""
    x = y = height = 0
    for place, made in enumerate(panels, start=1):
        grid = made["gridPos"]
        if x + grid["w"] > 24:
            x, y, height = 0, y + height, 0
        made["id"] = place
        made["gridPos"] = {"x": x, "y": y, **grid}
        x, height = x + grid["w"], max(height, grid["h"])
    others = {"type": "dashboards", "title": "otel_stageio", "tags": ["otel_stageio"], "asDropdown": True}
    return {
        "uid": f"otel-stageio-{name}", "title": title, "tags": ["otel_stageio"], "schemaVersion": 41, "version": 1,
        "editable": True, "timezone": "browser", "time": {"from": "now-24h", "to": "now"}, "refresh": "30s",
        "templating": {"list": variables}, "annotations": {"list": []},
        "links": [{**others, "keepTime": True, "includeVars": True}], "panels": panels,
    }  # fmt: skip


def pipelines(*, several: bool) -> Object:
    return variable("pipeline", "Pipeline", f"label_values({CALLS}, cicd_pipeline_name)", several=several)


def silent() -> str:
    """Hosts where stages ran within ten minutes of which none has ended or is heard of: as the alert HostSilent."""
    by = "host_name, cicd_pipeline_name, cicd_pipeline_task_name"
    over = f"sum by ({by}) (increase({CALLS}{{{STAGE}}}[20m])) > 0"
    for label in ("cicd_pipeline_name", "cicd_pipeline_task_name"):
        over = f'label_replace({over}, "otel_scope_{label}", "$1", "{label}", "(.*)")'
    gone = f"max_over_time(({BY_HOST})[10m:1m]) unless on ({BY_STAGE}) {over}"
    return f"sum by (host_name) ({gone}) unless on (host_name) sum by (host_name) ({BY_HOST})"


def runs() -> Object:
    by = "cicd_pipeline_name"
    average, slow = since_start(RUN, by)
    columns = {
        "Ended": ended(RUN, by), "Failed": ended(f"{RUN}, {BAD_RUN}", by), "Mean": average, "95th percentile": slow,
    }  # fmt: skip
    active = "sum by (otel_scope_cicd_pipeline_run_id, otel_scope_cicd_pipeline_task_name) "
    active = f"count({active}(rate(process_cpu_time_seconds_total[5m])) > 0) or vector(0)"
    host = variable("host", "Host", f"label_values({CALLS}, host_name)", several=True)
    there = 'host_name=~"$host"'
    gpu = f'hw_gpu_utilization_ratio{{otel_scope_cicd_pipeline_name=~"$pipeline", {there}}}'
    return dashboard("runs", "Runs", [pipelines(several=True), host], [
        number("Runs ended", ended(RUN), description="In the time shown."),
        number("Runs failed", f"{ended(f'{RUN}, {BAD_RUN}')} or vector(0)", red_from=0.5),
        number("Stages failed", f"{ended(f'{STAGE}, {BAD_STAGE}')} or vector(0)", red_from=0.5),
        number("Stages running", active),
        table("Pipelines", {by: "Pipeline"}, columns, to("pipeline", "Open it", pipeline="${__value.raw}"),
              description="Ended and failed in the time shown; the rest since the collector started."),
        bars("Runs", ask(ended(RUN, by, "$__rate_interval"), f"{{{{{by}}}}}", exemplar=True),
             description="How many ended. The dots above are single runs: click one for its trace."),
        dots("How long runs took", ask(mean(RUN, by, "$__rate_interval"), f"{{{{{by}}}}}"),
             description="The dots are single runs: click one for its trace."),
        lines("Stages running by host", ask(f"sum by (host_name) ({BY_HOST})", "{{host_name}}"),
              description="Of those that measure themselves, which a stage does unless it is told not to."),
        panel("stat", "Silent hosts", (12, 8), ask(silent(), "{{host_name}}", instant=True), red_from=0.5,
              options={"textMode": "value_and_name", "colorMode": "background"},
              description="Stages ran there within the last 10 minutes, none has ended, and nothing is heard of them."),
        bars("Failures by host", ask(ended(f"{STAGE}, {BAD_STAGE}, {there}", "host_name", "$__rate_interval"),
                                     "{{host_name}}", exemplar=True)),
        lines("GPUs busy by host", ask(f"avg by (host_name) ({gpu} {RUNNING_THERE})", "{{host_name}}"),
             unit="percentunit", max=1,
             description="The mean of those beside stages that run: how much of the time some kernel ran on them."),
        logs("Warnings and errors", '{service_name=~".+"} | severity_number >= 13',
             description="Log records from WARN up; a record's trace id opens its trace."),
        traces(),
    ])  # fmt: skip


def pipeline() -> Object:
    task, stage = "cicd_pipeline_task_name", "{{cicd_pipeline_task_name}}"
    average, slow = since_start(f'{STAGE}, cicd_pipeline_task_run_result="success"', task)
    columns = {
        "Ended": ended(STAGE, task), "Failed": ended(f"{STAGE}, {BAD_STAGE}", task), "Mean": average,
        "95th percentile": slow,
    }  # fmt: skip
    run_mean, run_slow = since_start(RUN, "cicd_pipeline_name")
    cpu = 'process_cpu_time_seconds_total{otel_scope_cicd_pipeline_name=~"$pipeline"}'
    link = to("stage", "Open it", pipeline="${pipeline}", stage="${__value.raw}")
    return dashboard("pipeline", "One pipeline", [pipelines(several=False)], [
        number("Runs ended", ended(RUN)),
        number("Runs failed", f"{ended(f'{RUN}, {BAD_RUN}')} or vector(0)", red_from=0.5),
        number("A run takes", run_mean, unit="s", description="The mean since the collector started."),
        number("19 of 20 take less than", run_slow, unit="s", description="Since the collector started."),
        table("Stages", {task: "Stage"}, columns, link,
              description="Ended and failed in the time shown; mean and percentile, of those that succeeded, since the "
              "collector started."),
        dots("Duration", ask(mean(STAGE, task, "$__rate_interval"), stage),
             description="Mean of the stages that ended in each interval. Click a dot beside them for its trace."),
        bars("Where the time goes",
             ask(f"sum by ({task}) (increase({DURATION}_sum{{{STAGE}}}[$__rate_interval]))", stage), unit="s"),
        bars("Results", ask(ended(STAGE, "cicd_pipeline_task_run_result", "$__rate_interval"),
                            "{{cicd_pipeline_task_run_result}}", exemplar=True),
             description="success, failure, error (crashed), timeout, cancellation, skip; none is incomplete."),
        bars("Why stages failed", ask(ended(f"{STAGE}, {BAD_STAGE}", f"{task}, error_type", "$__rate_interval"),
                                      f"{stage}: {{{{error_type}}}}", exemplar=True)),
        per_run("Processor time by run", f"sum by ({BY_RUN}) (max_over_time({cpu}[$__range]))", "s"),
        traces(tags="cicd.pipeline.name=$pipeline"),
    ])  # fmt: skip


def stage() -> Object:
    by = "cicd_pipeline_task_name"
    known = f'label_values({CALLS}{{cicd_pipeline_name=~"$pipeline"}}, {by})'
    average, slow = since_start(f'{ONE_STAGE}, cicd_pipeline_task_run_result="success"', by)
    where = "{{otel_scope_cicd_pipeline_task_name}}"
    gpu = "hw_name, hw_id, otel_scope_cicd_pipeline_task_name"
    device = f"{where} on {{{{hw_name}}}} {{{{hw_id}}}}"

    def used(name: str, by: str = "otel_scope_cicd_pipeline_task_name", how: str = "sum") -> str:
        return f"{how} by ({by}) ({name}{{{MEASURED}}} {RUNNING})"

    def used_per_second(name: str, by: str = "otel_scope_cicd_pipeline_task_name") -> str:
        return f"sum by ({by}) (rate({name}{{{MEASURED}}}[$__rate_interval]))"

    variables = [pipelines(several=False), variable("stage", "Stage", known, several=True)]
    return dashboard("stage", "One stage", variables, [
        number("Ended", ended(ONE_STAGE)),
        number("Failed", f"{ended(f'{ONE_STAGE}, {BAD_STAGE}')} or vector(0)", red_from=0.5),
        number("Mean", average, unit="s", description="Of those that succeeded, since the collector started."),
        number("95th percentile", slow, unit="s"),
        dots("Duration", ask(mean(ONE_STAGE, by, "$__rate_interval"), "{{cicd_pipeline_task_name}}"),
             description="Mean of those that ended in each interval. Click a dot beside it for its trace."),
        bars("Why it failed", ask(ended(f"{ONE_STAGE}, {BAD_STAGE}", "cicd_pipeline_task_run_result, error_type",
                                        "$__rate_interval"),
                                  "{{cicd_pipeline_task_run_result}} {{error_type}}", exemplar=True)),
        lines("GPUs busy", ask(used("hw_gpu_utilization_ratio", gpu, "max"), device), unit="percentunit", max=1,
              description="Share of time in which some kernel ran on the device, also somebody else's."),
        lines("GPU memory", ask(used("hw_gpu_memory_usage_bytes", "hw_name, hw_id", "max"), "{{hw_name}} {{hw_id}}"),
              ask(used("hw_gpu_memory_limit_bytes", "hw_name, hw_id", "max"), "{{hw_name}} {{hw_id}}: there is"),
              ask(used("stageio_gpu_process_memory_usage_bytes", "hw_id, otel_scope_cicd_pipeline_task_name"),
                  f"{where} on {{{{hw_id}}}}"), unit="bytes",
              description="Of the device, and of the stage's own processes where that is known."),
        lines("GPU power", ask(used("hw_power_watts", gpu, "max"), device), unit="watt"),
        lines("GPU temperature", ask(used("hw_temperature_celsius", gpu, "max"), device), unit="celsius"),
        lines("Processors", ask(used_per_second("process_cpu_time_seconds_total"), where),
              description="That the stage and everything below it keep busy."),
        lines("Memory", ask(used("process_memory_usage_bytes"), where), unit="bytes",
              description="Resident memory of the process trees of stages that run."),
        lines("Disk", ask(used_per_second("process_disk_io_bytes_total",
                                          "disk_io_direction, otel_scope_cicd_pipeline_task_name"),
                          f"{where} {{{{disk_io_direction}}}}"), unit="Bps"),
        lines("Threads", ask(used("process_thread_count"), where)),
        per_run("Energy by run", f"sum by ({BY_RUN}) (max_over_time(hw_energy_joules_total{{{MEASURED}}}[$__range]))",
                "joule"),
        per_run("Processor time by run",
                f"sum by ({BY_RUN}) (max_over_time(process_cpu_time_seconds_total{{{MEASURED}}}[$__range]))", "s"),
        logs("What it said", '{service_name=~".+"} | cicd_pipeline_task_name=~"$stage"',
             description="A record's trace id opens its trace."),
        traces(tags="cicd.pipeline.name=$pipeline"),
    ])  # fmt: skip


def collector() -> Object:
    known = "label_values(otelcol_process_memory_rss, instance)"
    signals = {"spans": "spans", "log records": "log_records", "metric points": "metric_points"}

    def each(name: str, by: str = "instance") -> list[Object]:
        legend = " ".join(f"{{{{{label}}}}}" for label in by.split(", "))
        return [ask(of_collector(f"{name}_{noun}", by), f"{legend}: {words}") for words, noun in signals.items()]

    queue = {name: f'otelcol_exporter_queue_{name}{{instance=~"$instance"}}' for name in ("size", "capacity")}
    full = f"{queue['size']} / {queue['capacity']}"
    rate = {"unit": "cps"}
    return dashboard("collector", "Collector", [variable("instance", "Instance", known, several=True)], [
        number("The fullest queue", f"max({full})", unit="percentunit", red_from=0.7,
               description="Above 0.7 a backend is too slow or down."),
        number("Refused a second", " + ".join(f"sum({of_collector(f'otelcol_receiver_refused_{noun}')})"
                                              for noun in signals.values()), decimals=1, red_from=0.01,
               description="Senders with a spool keep what is refused."),
        number("Dropped a second", " + ".join(f"(sum({of_collector(f'otelcol_exporter_send_failed_{noun}')}) or "
                                              "vector(0))" for noun in signals.values()), decimals=1, red_from=0.01,
               description="What a backend refused for good."),
        number("Collectors", 'count(otelcol_process_memory_rss{instance=~"$instance"})'),
        lines("Taken", *each("otelcol_receiver_accepted", "instance, receiver"), **rate),
        lines("Sent", *each("otelcol_exporter_sent", "instance, exporter"), **rate),
        lines("Refused", *each("otelcol_receiver_refused", "instance, receiver"), **rate,
              description="A queue that is full, or the limit of memory."),
        lines("Dropped", *each("otelcol_exporter_send_failed", "instance, exporter"), **rate),
        lines("Did not fit into a queue", *each("otelcol_exporter_enqueue_failed", "instance, exporter"), **rate),
        lines("Share of each queue that is full", ask(full, "{{instance}} {{exporter}} {{data_type}}"),
              unit="percentunit", max=1),
        lines("Memory", ask('otelcol_process_memory_rss{instance=~"$instance"}', "{{instance}}"), unit="bytes"),
        lines("Processors", ask(of_collector("otelcol_process_cpu_seconds"), "{{instance}}")),
    ])  # fmt: skip


def files() -> dict[str, str]:
    """Name of each file under ``dashboards/`` -> what belongs in it."""
    made = {"runs": runs(), "pipeline": pipeline(), "stage": stage(), "collector": collector()}
    return {f"{name}.json": json.dumps(item, indent=1, ensure_ascii=False) + "\n" for name, item in made.items()}


if __name__ == "__main__":
    for name, text in files().items():
        (DASHBOARDS / name).write_text(text, encoding="utf-8")
