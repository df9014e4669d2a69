(() => {
"use strict";

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const find = (id) => document.getElementById(id);
const data = read("data");
const plots = read("plots");
const chosen = { fit: data.shown, run: 0, at: 0 };
const FAINT = 0.15; // how filled they are
const SURE = 0.9; // checkpoints whose phase is less probable have hollow markers
const NARROW = 720; // pixels, where a legend takes several rows
const MARKERS = 20; // of phases, on a curve
const models = new Map();

const fit = () => data.fits[chosen.fit];
const run = () => data.runs[chosen.run];
const ofRun = () => fit().runs[chosen.run];
const known = (values) => values.map((value) => value ?? NaN);
const written = (value) =>
  value === null || value === undefined ? "not known"
  : Number.isInteger(value) ? value.toLocaleString("en")
  : String(Number(value.toPrecision(4)));

/* the last of sorted numbers that is at most x: -1 where all are larger */
function before(numbers, x) {
  let low = 0, high = numbers.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] <= x) low = middle + 1; else high = middle;
  }
  return low - 1;
}

function nearest(numbers, x) {
  const i = before(numbers, x);
  if (i < 0) return 0;
  return i + 1 < numbers.length && numbers[i + 1] - x < x - numbers[i] ? i + 1 : i;
}

function fill(name, columns) {
  const source = models.get(name);
  if (source) source.data = columns;
}

/* a legend looks like the first point: let that be a filled one */
function fillPoints(name, points) {
  points.sort((one, other) => other[2] - one[2]);
  fill(name, { x: points.map((p) => p[0]), y: points.map((p) => p[1]), alpha: points.map((p) => p[2]) });
}

/* points by phase: xs and ys are of checkpoints, whose indices are in `at` */
function fillPhases(figure, xs, ys, at) {
  const { path, probability } = ofRun();
  fit().states.forEach((k) => {
    const mine = at.map((_, j) => j).filter((j) => at[j] >= 0 && path[at[j]] === k);
    fillPoints(`${figure}:phase:${k}`, mine.map((j) =>
      [xs[j] ?? NaN, ys[j] ?? NaN, probability[k][at[j]] >= SURE ? 1 : FAINT]));
  });
}

/* a curve in pieces, one for each stretch in a phase and on to the first point of the next */
function fillPieces(figure, c, curve, held) {
  const { path } = ofRun();
  const states = held.map((i) => (i < 0 ? -1 : path[i]));
  const pieces = fit().states.map(() => ({ xs: [], ys: [] }));
  for (let a = 0, b; a < states.length; a = b) {
    for (b = a + 1; b < states.length && states[b] === states[a]; b++);
    if (states[a] < 0) continue;
    pieces[states[a]].xs.push(curve.steps.slice(a, b + 1));
    pieces[states[a]].ys.push(known(curve.values.slice(a, b + 1)));
  }
  pieces.forEach((columns, k) => fill(`${figure}:pieces:${c}:${k}`, columns));
}

function emptySources() {
  for (const [name, model] of models) {
    if (model.data && /:(phase|pieces):/.test(name)) {
      model.data = Object.fromEntries(Object.keys(model.data).map((column) => [column, []]));
    }
  }
}

/* on a dark ground the dark phases would look hollow */
function shade(color) {
  if (document.documentElement.dataset.theme !== "dark") return color;
  const mixed = [1, 3, 5].map((i) => Math.round(0.6 * parseInt(color.slice(i, i + 2), 16) + 102));
  return "#" + mixed.map((part) => part.toString(16).padStart(2, "0")).join("");
}

function paintPhases() {
  const n = fit().states.length;
  for (const [name, model] of models) {
    const [, figure, kind, number] = name.match(/^([^:]+):(glyph|legend):(\d+)$/) ?? [];
    const line = name.match(/^[^:]+:line:\d+:(\d+)$/);
    if (line && line[1] < n) model.line_color = shade(fit().colors[line[1]]);
    if (kind === "glyph" && number < n) {
      model.fill_color = shade(fit().colors[number]);
      if ("hatch_color" in model) model.hatch_color = fit().inks[number];
    } else if (kind === "legend" && figure !== "counts") {
      model.visible = number < n;
    }
  }
}

function drawRun() {
  const { steps, curves, scores } = run();
  const { switches, probability, described } = ofRun();
  const last = steps.length ? steps[steps.length - 1] : 1;
  const first = steps.length ? steps[0] : 0;
  models.get("steps").setv({ start: first, end: Math.max(last, first + 1), reset_start: first, reset_end: Math.max(last, first + 1) });
  for (const panel of data.panels) {
    const xs = [], ys = [], at = [];
    panel.curves.forEach((_, c) => {
      const curve = curves[panel.id][c] ?? { steps: [], values: [] };
      fill(`${panel.id}:curve:${c}`, { x: curve.steps, y: known(curve.values) });
      const held = curve.steps.map((step) => (step > last ? -1 : before(steps, step)));
      fillPieces(panel.id, c, curve, held);
      const apart = Math.ceil(curve.steps.length / MARKERS);
      for (let j = Math.floor(apart / 2); j < curve.steps.length; j += apart) {
        xs.push(curve.steps[j]); ys.push(curve.values[j]); at.push(held[j]);
      }
    });
    fillPhases(panel.id, xs, ys, at);
  }
  for (const figure of [...data.panels.map((panel) => panel.id), "probability"]) {
    fill(`${figure}:switches`, { x: switches.map((s) => s[2]) });
    fill(`${figure}:intervals`, { x0: switches.map((s) => s[3]), x1: switches.map((s) => s[4]) });
  }
  /* a checkpoint's probabilities hold until the next: two corners for each stretch */
  const x = steps.flatMap((step, i) => (i ? [step, step] : [step]));
  const held = (values) => values.flatMap((value, i) => (i + 1 < values.length ? [value, value] : [value]));
  let low = steps.map(() => 0);
  probability.forEach((row, k) => {
    const top = row.map((p, i) => low[i] + (p ?? NaN));
    fill(`probability:phase:${k}`, { x, y1: held(low), y2: held(top) });
    low = top;
  });
  if (scores) {
    const [x, y] = scores.map(known);
    fillPhases("pca", x, y, steps.map((_, i) => i));
    fill("pca:way", { x, y });
    const ends = steps.length ? [0, steps.length - 1] : [];
    fill("pca:ends", { x: ends.map((i) => x[i]), y: ends.map((i) => y[i]), marker: ["circle_dot", "circle_x"].slice(0, ends.length) });
    const turns = run().turns;
    fill("pca:turns", { x: turns.map((t) => t.at[0]), y: turns.map((t) => t.at[1]) });
    fill("pca:around", { xs: turns.map((t) => t.around[0]), ys: turns.map((t) => t.around[1]) });
    const others = data.runs.filter((_, r) => r !== chosen.run);
    fill("pca:others", { xs: others.map((r) => known(r.scores[0])), ys: others.map((r) => known(r.scores[1])) });
  }
  find("run-described").textContent = described;
  for (const figure of [...data.panels.map((panel) => panel.id), "probability", "pca"]) {
    const place = find(`figure-${figure}`);
    if (place) {
      place.dataset.what ??= place.getAttribute("aria-label");
      place.setAttribute("aria-label", `${place.dataset.what} ${described}`);
    }
  }
  for (const row of document.querySelectorAll("tr[data-run]")) {
    row.classList.toggle("chosen", row.dataset.run === run().name);
  }
  const slider = find("choose-checkpoint");
  slider.max = Math.max(steps.length - 1, 0);
  fill("overview:chosen", { left: [first], right: [last], top: [chosen.run - 0.47], bottom: [chosen.run + 0.47] });
  point(Math.min(chosen.at, Math.max(steps.length - 1, 0)));
}

function drawFit() {
  for (const part of document.querySelectorAll(".of-fit")) {
    part.hidden = Number(part.dataset.fit) !== chosen.fit;
  }
  emptySources();
  paintPhases();
  const rows = fit().runs;
  fit().states.forEach((k) => {
    const bars = rows.flatMap((row, r) => row.blocks.filter((b) => b[0] === k).map((b) => [b[1], b[2], r]));
    fill(`overview:phase:${k}`, {
      left: bars.map((b) => b[0]), right: bars.map((b) => b[1]),
      top: bars.map((b) => b[2] - 0.36), bottom: bars.map((b) => b[2] + 0.36),
    });
  });
  const all = rows.flatMap((row, r) => row.switches.map((s) => [...s, r]));
  fill("overview:switches", { x: all.map((s) => s[2]), y: all.map((s) => s[5]) });
  fill("overview:intervals", { x0: all.map((s) => s[3]), x1: all.map((s) => s[4]), y: all.map((s) => s[5]) });
  const place = find("figure-overview");
  place.setAttribute("aria-label", `Phases of all runs. ${rows.map((row) => row.described).join(" ")}`);
  drawSpeeds();
  const edges = fit().drivers ?? [];
  find("choose-edge")?.replaceChildren(...edges.map((edge, i) =>
    new Option(`phase ${edge.from} to phase ${edge.to}, ${Number(edge.runs.toFixed(1))} of ${data.runs.length} runs`, i)));
  drawDrivers(0);
  drawRun();
}

/* the features of one switch, the strongest on top */
function drawDrivers(number) {
  if (!models.has("drivers")) return;
  const edge = fit().drivers?.[number] ?? { features: [], evidence: [], lower: [], upper: [], change: [] };
  const y = edge.features.map((_, d) => d);
  const known = [...edge.lower, ...edge.upper, 0];
  const room = 0.05 * (Math.max(...known) - Math.min(...known)) || 1;
  const ends = { start: Math.min(...known) - room, end: Math.max(...known) + room };
  models.get("drivers:range").setv({ ...ends, reset_start: ends.start, reset_end: ends.end });
  models.get("drivers:features").major_label_overrides = new Map(edge.features.map((name, d) => [d, name]));
  fill("drivers:intervals", { x0: edge.lower, x1: edge.upper, y });
  for (const [name, sign] of [["rises", 1], ["falls", -1], ["unsure", 0]]) {
    const mine = y.filter((d) => edge.change[d] === sign);
    fill(`drivers:${name}`, { x: mine.map((d) => edge.evidence[d]), y: mine });
  }
  const place = find("figure-drivers");
  place.dataset.what ??= place.getAttribute("aria-label");
  const strongest = edge.features.slice(0, 3).map((name, d) => `${name} ${written(edge.evidence[d])}`);
  place.setAttribute("aria-label", `${place.dataset.what} Strongest: ${strongest.join(", ")}.`);
}

function drawSpeeds() {
  const speeds = fit().speeds;
  if (!models.has("speeds:intervals") || !speeds) return;
  const n = fit().states.length;
  const ends = { x0: [], x1: [], y: [] };
  const sizes = speeds.speed.flat().filter((v) => v).map(Math.abs);
  const least = Math.min(...sizes) / 2;
  fit().states.forEach((k) => {
    const points = [];
    speeds.speed[k].forEach((value, d) => {
      if (!value) return;
      const y = d + ((k - (n - 1) / 2) * 0.7) / n;
      points.push([Math.abs(value), y, value > 0 ? 1 : FAINT]);
      const [a, b] = [speeds.speed_lower[k][d], speeds.speed_upper[k][d]];
      const crosses = a < 0 && b > 0;
      const sides = [Math.abs(a), Math.abs(b)];
      ends.x0.push(crosses ? least : Math.max(Math.min(...sides), least));
      ends.x1.push(Math.max(...sides, least)); ends.y.push(y);
    });
    fillPoints(`speeds:phase:${k}`, points);
  });
  fill("speeds:intervals", ends);
}

/* mark one checkpoint of the run in every figure */
function point(i) {
  chosen.at = i;
  const { steps, epochs, curves, scores } = run();
  const slider = find("choose-checkpoint");
  slider.value = i;
  if (!steps.length) {
    find("readout").textContent = "This run has no checkpoints.";
    return;
  }
  const step = steps[i];
  const { path, probability } = ofRun();
  const said = [`step ${step.toLocaleString("en")}`];
  if (epochs) said.push(`epoch ${written(epochs[i])}`);
  const k = path[i];
  if (k >= 0) said.push(`phase ${k} (p = ${written(probability[k][i])})`);
  for (const panel of data.panels) {
    const x = [], y = [];
    panel.curves.forEach((name, c) => {
      const curve = curves[panel.id][c];
      const j = curve ? before(curve.steps, step) : -1;
      if (j < 0 || curve.steps[j] !== step || curve.values[j] === null) return;
      x.push(step); y.push(curve.values[j]);
      said.push(`${name} ${written(curve.values[j])}`);
    });
    fill(`${panel.id}:mark`, { x, y });
    fill(`${panel.id}:cursor`, { x: [step] });
  }
  fill("probability:cursor", { x: [step] });
  fill("probability:mark", k >= 0 ? { x: [step], y: [middle(probability, k, i)] } : { x: [], y: [] });
  if (scores) fill("pca:mark", { x: [scores[0][i] ?? NaN], y: [scores[1][i] ?? NaN] });
  fill("overview:cursor", { x: [step], y0: [chosen.run - 0.45], y1: [chosen.run + 0.45] });
  find("readout").textContent = said.join(" · ");
  slider.setAttribute("aria-valuetext", said.join(", "));
}

/* where the area of a phase has its middle, in the stack */
function middle(probability, k, i) {
  const below = probability.slice(0, k).reduce((sum, row) => sum + row[i], 0);
  return below + probability[k][i] / 2;
}

/* called at most once for each frame: with the last event of many */
function calm(act) {
  let last = null;
  return (event) => {
    if (last === null) requestAnimationFrame(() => { const e = last; last = null; act(e); });
    last = event;
  };
}

function listen() {
  const byStep = calm((event) => run().steps.length && point(nearest(run().steps, event.x)));
  const byPlace = calm((event) => {
    const plot = models.get("pca");
    const width = plot.x_range.end - plot.x_range.start;
    const height = plot.y_range.end - plot.y_range.start;
    let best = -1, least = Infinity;
    run().steps.forEach((_, i) => {
      const [x, y] = [run().scores[0][i], run().scores[1][i]];
      if (x === null || y === null) return;
      const distance = ((x - event.x) / width) ** 2 + ((y - event.y) / height) ** 2;
      if (distance < least) { least = distance; best = i; }
    });
    if (best >= 0) point(best);
  });
  const pointing = { probability: byStep, pca: byPlace };
  for (const panel of data.panels) pointing[panel.id] = byStep;
  for (const [name, act] of Object.entries(pointing)) {
    for (const event of ["mousemove", "tap"]) models.get(name)?.on_event(event, act);
  }
  models.get("overview").on_event("tap", (event) => {
    const r = Math.round(event.y);
    if (r < 0 || r >= data.runs.length) return;
    chooseRun(r);
    if (run().steps.length) point(nearest(run().steps, event.x));
  });
  find("choose-run").addEventListener("change", (event) => chooseRun(Number(event.target.value)));
  find("choose-fit")?.addEventListener("change", (event) => {
    chosen.fit = Number(event.target.value);
    drawFit();
  });
  find("choose-edge")?.addEventListener("change", (event) => drawDrivers(Number(event.target.value)));
  find("choose-checkpoint").addEventListener("input", (event) => point(Number(event.target.value)));
  for (const row of document.querySelectorAll("tr[data-run]")) {
    row.addEventListener("click", () => chooseRun(data.runs.findIndex((r) => r.name === row.dataset.run)));
  }
  for (const button of document.querySelectorAll(".download")) {
    button.addEventListener("click", () => download(button.dataset.figure));
  }
}

function chooseRun(r) {
  chosen.run = r;
  find("choose-run").value = r;
  drawRun();
}

async function download(figure) {
  const model = models.get(figure);
  const blob = await Bokeh.index.get_by_id(model.id).export("svg").to_blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `${figure}.svg`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function sortable() {
  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      heading.querySelector("button").addEventListener("click", () => {
        const up = heading.getAttribute("aria-sort") !== "ascending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", up ? "ascending" : "descending");
        sort(table.tBodies[0], column, up ? 1 : -1);
      });
    });
  }
}

/* by value where cells have one, else by their text; what is missing is last either way */
function sort(body, column, sign) {
  const rows = [...body.rows];
  const value = (row) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value);
  };
  rows.sort((one, other) => {
    const [a, b] = [value(one), value(other)];
    if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
    if (typeof a === "number") return sign * (a - b);
    if (!a !== !b) return a ? -1 : 1;
    return sign * a.localeCompare(b, "en", { numeric: true });
  });
  body.append(...rows);
}

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let wanted = null;
  try { wanted = localStorage.getItem("bayesphase-theme"); } catch { /* not allowed from disk */ }
  const button = find("theme");
  const apply = () => {
    const now = wanted ?? (dark.matches ? "dark" : "light");
    document.documentElement.dataset.theme = now;
    button.setAttribute("aria-pressed", String(now === "dark"));
    tint();
    paintPhases();
  };
  button.addEventListener("click", () => {
    wanted = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("bayesphase-theme", wanted); } catch { /* not allowed from disk */ }
    apply();
  });
  dark.addEventListener("change", apply);
  apply();
}

/* parts that have the colour of text are tagged "ink:" and the name of the property */
function tint() {
  const ink = getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
  for (const model of models.values()) {
    for (const tag of model.tags) {
      if (String(tag).startsWith("ink:")) model[tag.slice(4)] = ink;
    }
  }
}

async function begin() {
  theme();
  sortable();
  await Bokeh.embed.embed_items(
    { report: plots.document },
    [{ docid: "report", roots: plots.roots, root_ids: Object.keys(plots.roots) }],
  );
  for (const model of Bokeh.documents.at(-1).all_models ?? []) models.set(model.name ?? model.id, model);
  const narrow = matchMedia(`(max-width: ${NARROW}px)`);
  const fold = () => {
    for (const [name, model] of models) {
      if (name.endsWith(":legend")) model.ncols = narrow.matches ? 3 : model.items.length;
    }
  };
  narrow.addEventListener("change", fold);
  fold();
  listen();
  tint();
  drawFit();
  const controls = document.querySelector(".controls"); // a heading that is gone to is under them
  new ResizeObserver(() => {
    document.documentElement.style.scrollPaddingTop = `${controls.offsetHeight + 8}px`;
  }).observe(controls);
  document.documentElement.dataset.ready = "yes";
}

begin();
})();
