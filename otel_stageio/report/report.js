// The report's own script: folding, filtering, curves, and reloading while a job runs. Everything it shows is in the page.
"use strict";
document.documentElement.classList.add("js");
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// -- folding -----------------------------------------------------------------------------------------------------------

for (const button of all(".fold")) {
  const inside = document.getElementById(button.getAttribute("aria-controls"));
  const fold = (open) => { button.setAttribute("aria-expanded", open); inside.hidden = !open; };
  button.addEventListener("click", () => fold(inside.hidden));
  fold(!button.closest(".group").hasAttribute("data-folded"));
}

const stages = all(".stage > details");
document.querySelector(".open-all")?.addEventListener("click", () => stages.forEach((stage) => { stage.open = true; }));
document.querySelector(".close-all")?.addEventListener("click", () => stages.forEach((stage) => { stage.open = false; }));

function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const details = target?.matches(".stage") && target.querySelector("details");
  if (details) { details.open = true; target.scrollIntoView(); }
}
addEventListener("hashchange", openTarget);
openTarget();

// -- logs --------------------------------------------------------------------------------------------------------------

const SEVERITY = { DEBUG: 10, INFO: 20, WARNING: 30, ERROR: 40, CRITICAL: 50 };

function matcher(asked) {
  const regex = asked.match(/^\/(.+)\/$/);
  if (regex) {
    try {
      const wanted = new RegExp(regex[1], "i");
      return (text) => wanted.test(text);
    } catch { /* not finished yet, or none: look for it as it stands */ }
  }
  const wanted = asked.toLowerCase();
  return (text) => text.toLowerCase().includes(wanted);
}

for (const view of all(".log-view")) {
  const level = view.querySelector(".level"), search = view.querySelector(".search"), said = view.querySelector("output");
  const rows = all(".log-row", view);
  const filter = () => {
    const least = SEVERITY[level.value], asked = search.value.trim(), matches = matcher(asked);
    let shown = 0;
    for (const row of rows) {
      const visible = (SEVERITY[row.dataset.level] ?? 20) >= least && (!asked || matches(row.textContent));
      row.hidden = !visible;
      shown += visible;
    }
    said.textContent = shown === rows.length ? "" : `${shown} of ${rows.length} records`;
  };
  level.addEventListener("change", filter);
  search.addEventListener("input", filter);
  if (level.value !== "DEBUG" || search.value) filter(); // a reload keeps what was chosen
}

// -- lineage -----------------------------------------------------------------------------------------------------------

const lineage = document.getElementById("lineage");
for (const node of lineage ? all(".node", lineage) : []) {
  const id = node.dataset.node;
  node.addEventListener("mouseenter", () => {
    const near = new Set([id]);
    for (const edge of all(".edge", lineage)) {
      const touches = edge.dataset.from === id || edge.dataset.to === id;
      edge.classList.toggle("near", touches);
      if (touches) near.add(edge.dataset.from).add(edge.dataset.to);
    }
    for (const other of all(".node", lineage)) other.classList.toggle("near", near.has(other.dataset.node));
    lineage.classList.add("tracing");
  });
  node.addEventListener("mouseleave", () => lineage.classList.remove("tracing"));
}

// -- curves ------------------------------------------------------------------------------------------------------------

const curves = document.getElementById("curves");
const COLOURS = ["#0969da", "#bc4c00", "#1a7f37", "#8250df", "#bf3989", "#9a6700", "#1b7c83", "#cf222e"];
const LIGHT = ["#58a6ff", "#f0883e", "#3fb950", "#bc8cff", "#f778ba", "#d29922", "#39c5cf", "#ff7b72"];

function timeLabel(seconds) {
  if (seconds < 120) return `${+seconds.toFixed(2)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min` + (seconds % 60 ? ` ${Math.round(seconds % 60)} s` : "");
  return `${Math.floor(seconds / 3600)} h ${String(Math.round((seconds % 3600) / 60)).padStart(2, "0")} min`;
}

function drawCurves() {
  const data = JSON.parse(document.getElementById("curves-data").textContent);
  for (const old of all(".chart", curves)) old.remove();
  const style = getComputedStyle(document.documentElement), dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const colour = (name) => style.getPropertyValue(name).trim();
  const label = document.querySelector(".grid");
  const left = label ? label.getBoundingClientRect().left - curves.getBoundingClientRect().left : 60;
  const names = [...new Set(data.charts.flatMap((chart) => chart.series.map((one) => one.name)))];
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  for (const chart of data.charts) {
    const box = document.createElement("div"), title = document.createElement("p"), said = document.createElement("span");
    box.className = "chart";
    title.textContent = `${chart.title}, ${chart.unit} `;
    said.className = "quiet";
    const quietly = `at most ${chart.peak}`;
    said.textContent = quietly;
    title.append(said);
    box.append(title);
    curves.append(box);
    const series = chart.series.map((one) => {
      const at = names.indexOf(one.name) % COLOURS.length;
      return { label: one.name, stroke: (dark ? LIGHT : COLOURS)[at], width: 1.5, points: { show: one.x.length < 3 },
        fill: (dark ? LIGHT : COLOURS)[at] + "22" };
    });
    const joined = uPlot.join(chart.series.map((one) => [one.x, one.y]));
    const plot = new uPlot({
      width: curves.clientWidth, height: 110, series: [{}, ...series], legend: { show: false },
      padding: [6, 0, 0, 0], cursor: { y: false, sync: { key: "time" }, drag: { x: false, y: false } },
      scales: { x: { time: false, range: [0, data.seconds] }, y: { range: (_, __, most) => [0, most > 0 ? most * 1.05 : 1] } },
      axes: [{ ...axis, size: 20, values: (_, ticks) => ticks.map(timeLabel) }, { ...axis, size: left, gap: 8, space: 24 }],
      hooks: { setCursor: [(it) => {
        const at = it.cursor.idx;
        const found = at === null ? [] : it.series.slice(1).map((one, number) => [one.label, it.data[number + 1][at]])
          .filter(([, value]) => value !== null && value !== undefined);
        said.textContent = found.length
          ? `${timeLabel(it.data[0][at])}: ${found.map(([name, value]) => `${name} ${value}`).join(", ")}` : quietly;
      }] },
    }, joined, box);
    plot.root.querySelector("canvas").setAttribute("aria-hidden", "true"); // the list before the charts says the peaks
  }
}
if (curves) {
  drawCurves();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCurves);
  let width = curves.clientWidth;
  addEventListener("resize", () => {
    if (curves.clientWidth !== width) { width = curves.clientWidth; drawCurves(); }
  });
}

// -- print: a page has no folds ----------------------------------------------------------------------------------------

const print = matchMedia("print");
let opened = [];
print.addEventListener("change", () => {
  if (print.matches) {
    opened = all("details:not([open])");
    for (const details of opened) details.open = true;
  } else {
    for (const details of opened) details.open = false;
    opened = [];
  }
});

// -- a running job -----------------------------------------------------------------------------------------------------

// Where to ask for the job's version, and after a # the version that is shown.
const [live, shown] = (document.body.dataset.live ?? "").split("#");
if (live) {
  const KEPT = "stageio-open";
  try {
    for (const id of JSON.parse(sessionStorage.getItem(KEPT) ?? "[]")) {
      const details = document.getElementById(id)?.querySelector("details");
      if (details) details.open = true;
    }
  } catch { /* no storage: stages fold on a reload */ }
  let version = shown ?? null;
  const look = async () => {
    try {
      const answer = await fetch(live, { cache: "no-store" });
      const found = answer.ok ? await answer.text() : version;
      if (version !== null && found !== version) {
        try {
          const open = all(".stage").filter((stage) => stage.querySelector("details").open).map((stage) => stage.id);
          sessionStorage.setItem(KEPT, JSON.stringify(open));
        } catch { /* as above */ }
        location.reload();
        return;
      }
      version = found;
    } catch { /* the server is gone; what is shown stays */ }
    setTimeout(look, 2000);
  };
  look();
}
