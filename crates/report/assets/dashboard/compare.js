// Runs side by side; a single run's curves are the comparison of one.
import { ask, colour, h, number, percent, place, points, table } from "./dom.js";
import { follow, store } from "./live.js";

// Not more often than this, in milliseconds, while runs go on.
const PAUSE = 2000;

// The view of several runs.
export function comparison(main, ids) {
  main.append(h("nav", { class: "crumbs", "aria-label": "where" }, h("a", { href: "#/" }, "Runs")),
    h("h1", { tabindex: "-1" }, `${ids.length} run${ids.length === 1 ? "" : "s"} compared`));
  const host = h("div", {});
  main.append(host);
  return compared(host, ids, ["legend", "curves", "success", "differences", "settings"]);
}

// Fills `host` with parts of a comparison and keeps it up to date.
export function compared(host, ids, parts) {
  const status = h("p", { class: "quiet", role: "status" }, "reading …");
  const slots = Object.fromEntries(parts.map(part => [part, h("section", {})]));
  host.append(status, ...Object.values(slots));
  const abort = new AbortController();
  const charts = new Map(), hidden = new Set();
  let timer = 0, busy = false, wanted = false, last = 0, drawn = "", named = "";

  const load = async () => {
    if (busy) { wanted = true; return; }
    busy = true;
    wanted = false;
    const began = performance.now();
    try {
      const data = await ask("compare", ids.map(id => ["id", id]), abort.signal);
      const text = JSON.stringify(data);
      if (text !== drawn) {
        drawn = text;
        draw(data);
      }
      status.textContent = data.arms.length ? "" : "nothing can be read of these runs yet";
      status.hidden = !!data.arms.length;
    } catch (error) {
      if (error.name === "AbortError") return;
      status.hidden = false;
      status.textContent = error.message;
    }
    // A comparison that takes long is made less often.
    last = performance.now() + 4 * (performance.now() - began);
    busy = false;
    if (wanted) later();
  };
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(load, Math.max(0, last + PAUSE - performance.now()));
  };
  const redraw = () => { for (const chart of charts.values()) chart.draw(); };
  const draw = data => {
    const arms = JSON.stringify(data.arms);
    if (slots.legend && arms !== named) slots.legend.replaceChildren(legend(data, hidden, redraw));
    named = arms;
    if (slots.curves) curves(slots.curves, data, charts, hidden);
    if (slots.success) slots.success.replaceChildren(...success(data));
    if (slots.differences) slots.differences.replaceChildren(...differences(data));
    if (slots.settings) slots.settings.replaceChildren(...settings(data));
  };
  let resizing = 0, width = innerWidth;
  const resize = () => {
    if (innerWidth === width) return;
    width = innerWidth;
    clearTimeout(resizing);
    resizing = setTimeout(redraw, 150);
  };
  const dark = matchMedia("(prefers-color-scheme: dark)");
  dark.addEventListener("change", redraw);
  addEventListener("resize", resize);
  const stop = follow(changed => { if (ids.some(id => changed.has(id))) later(); });
  load();
  return () => {
    stop();
    abort.abort();
    clearTimeout(timer);
    clearTimeout(resizing);
    removeEventListener("resize", resize);
    dark.removeEventListener("change", redraw);
  };
}

const name = id => store.runs.get(id)?.name ?? id;

function legend(data, hidden, redraw) {
  return h("ul", { class: "arms legend" }, data.arms.map((arm, i) => {
    const swatch = h("i", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = colour(i);
    const button = h("button", { type: "button", "aria-pressed": String(!hidden.has(i)), title: "show or hide" }, swatch, arm.label);
    button.addEventListener("click", () => {
      if (!hidden.delete(i)) hidden.add(i);
      button.setAttribute("aria-pressed", String(!hidden.has(i)));
      redraw();
    });
    return h("li", {}, button, " ",
      arm.runs.map((id, k) => [k ? ", " : "", h("a", { href: place("run", id) }, name(id))]).flat());
  }));
}

function curves(host, data, charts, hidden) {
  if (!host.firstChild) {
    host.append(h("h2", {}, "Curves"), h("p", { class: "quiet" }), h("div", { class: "charts" }));
  }
  const many = data.arms.some(arm => arm.runs.length > 1);
  host.querySelector("p").textContent = many
    ? "Thick lines are means over seeds, bands their 95 % bootstrap intervals, thin lines single runs. Drag to zoom, double click to zoom out."
    : "Dashed lines are the smallest and the largest of the batch. Drag to zoom, double click to zoom out.";
  const grid = host.querySelector(".charts");
  for (const curve of data.curves) {
    const bands = curve.arms.map((band, i) => band && ({ ...band, arm: i, colour: colour(i), label: data.arms[i].label })).filter(Boolean);
    const lines = (curve.runs || []).map(r => ({ arm: r.arm, x: r.x, y: r.y, colour: colour(r.arm), dash: r.dash ? [4, 3] : undefined }));
    const known = charts.get(curve.key);
    if (known) known.update(bands, lines);
    else if (bands.length) charts.set(curve.key, globalThis.empgChart(grid, curve.title, bands, lines, hidden));
  }
}

function success(data) {
  const parts = [];
  for (const { split, rows } of data.splits) {
    const head = [h("tr", {}, h("th", { scope: "col", rowspan: 2 }, "task type"), data.arms.map(arm => h("th", { scope: "colgroup", colspan: 3 }, arm.label))),
      h("tr", {}, data.arms.map(() => ["before", "after", "change"].map(word => h("th", { scope: "col" }, word))))];
    parts.push(h("h3", {}, `${split} tasks`), table(`success on ${split} tasks, in per cent`, head, rows.map(row =>
      h("tr", { class: row.kind == null ? "all" : null }, h("th", { scope: "row" }, row.kind ?? "all"),
        row.arms.map(([before, after]) => [h("td", {}, percent(before)), h("td", {}, percent(after)),
          h("td", {}, before == null || after == null ? "–" : points(after - before))])))));
  }
  return parts.length ? [h("h2", {}, "Success by task type"), ...parts] : [];
}

function differences(data) {
  if (!data.differences.length) return [];
  const head = [h("tr", {}, ["difference, seed by seed", "tasks", "seeds", "points", "95 % interval", "p", "better / worse"]
    .map(word => h("th", { scope: "col" }, word)))];
  const rows = data.differences.map(({ arm, base, split, paired: p }) => h("tr", {},
    h("th", { scope: "row" }, `${data.arms[arm].label} − ${data.arms[base].label}`),
    [split, p.pairs, points(p.mean), p.interval ? `${points(p.interval.low)} … ${points(p.interval.high)}` : "–",
      p.p == null ? "–" : p.p.toFixed(3), `${p.better} / ${p.worse}`].map(cell => h("td", {}, String(cell)))));
  return [h("h2", {}, "Paired differences"), table("paired differences between arms", head, rows),
    h("p", { class: "quiet" }, "Equal seeds are paired. Intervals are Student's over seeds, p is the exact sign-flip test's: with n seeds it cannot be below 2 / 2ⁿ.")];
}

function settings(data) {
  const parts = [h("h2", {}, "Settings")];
  if (data.differing.length) {
    const head = [h("tr", {}, h("th", { scope: "col" }, "setting"), data.arms.map(arm => h("th", { scope: "col" }, arm.label)))];
    parts.push(h("h3", {}, "Where the arms differ"), table("settings in which the arms differ", head, data.differing.map(([key, values]) =>
      h("tr", {}, h("th", { scope: "row", class: "mono" }, key), values.map(value => h("td", { class: "mono" }, value ?? "–"))))));
  }
  const shared = Object.entries(data.shared);
  if (shared.length) {
    const head = [h("tr", {}, h("th", { scope: "col" }, "setting"), h("th", { scope: "col", class: "text" }, "value"))];
    const all = table("settings", head, shared.map(([key, value]) =>
      h("tr", {}, h("th", { scope: "row", class: "mono" }, key), h("td", { class: "mono text" }, value))));
    parts.push(data.arms.length > 1 ? h("details", {}, h("summary", {}, `${shared.length} settings that all share`), all) : all);
  }
  return parts;
}
