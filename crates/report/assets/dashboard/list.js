// The list of runs: sorted, filtered, chosen for a comparison. Rows stay where the focus is.
import { STATES, duration, h, number, percent, place, points, spark, state } from "./dom.js";
import { follow, store } from "./live.js";

const chosen = new Set();
const COLUMNS = [
  ["name", "run", r => r.name, "text"],
  ["state", "state", r => STATES.indexOf(r.state), "text"],
  ["algorithm", "algorithm", r => r.algorithm, "text"],
  ["environment", "environment", r => r.environment, "text"],
  ["seed", "seed", r => r.seed ?? -1],
  ["step", "steps", r => r.step ?? -1],
  ["success", "success in training", r => r.success ?? -1],
  ["after", "held-out tasks", r => r.after ?? r.before ?? -1],
  ["updated", "updated", r => r.updated ?? 0],
];
const settings = { sort: "updated", down: true, words: "", state: "" };

export function list(main) {
  const search = h("input", { type: "search", class: "wide", placeholder: "filter by name, algorithm, environment", "aria-label": "filter runs" });
  const states = h("select", { "aria-label": "state" }, [["", "all states"], ...STATES.map(s => [s, s])]
    .map(([value, text]) => h("option", { value }, text)));
  search.value = settings.words;
  states.value = settings.state;
  const compare = h("button", { type: "button", class: "primary" }, "Compare");
  const clear = h("button", { type: "button" }, "Choose none");
  const count = h("span", { class: "quiet", role: "status" });
  const heads = COLUMNS.map(([key, title, , text]) => {
    const button = h("button", { type: "button", class: "sort" }, title);
    button.addEventListener("click", () => {
      settings.down = settings.sort === key ? !settings.down : !text;
      settings.sort = key;
      draw();
    });
    return h("th", { scope: "col", class: text || null, "data-key": key }, button);
  });
  const body = h("tbody");
  const grid = h("div", { class: "scroll runs" }, h("table", {}, h("caption", { class: "unseen" }, "runs"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col", class: "text" }, h("span", { class: "unseen" }, "choose")), heads)), body));
  const notices = h("div", { class: "notices" });
  const empty = h("div", { class: "nothing", hidden: true });
  main.append(h("h1", { tabindex: "-1" }, "Runs"),
    h("div", { class: "controls", role: "group", "aria-label": "filter and compare" }, search, states, compare, clear, count),
    empty, grid, notices);

  const rows = new Map();
  const row = id => {
    const box = h("input", { type: "checkbox" });
    box.checked = chosen.has(id);
    box.addEventListener("change", () => { if (box.checked) chosen.add(id); else chosen.delete(id); buttons(); });
    const cells = Object.fromEntries(COLUMNS.map(([key, title, , text]) => [key, h("td", { class: text || null, "data-title": title })]));
    const link = h("a", { href: place("run", id) });
    const credit = h("a", { href: place("run", id, "credit"), class: "small" }, "credit");
    cells.name.append(h("div", {}, link), h("div", { class: "quiet small note" }));
    return { node: h("tr", {}, h("td", { class: "text box" }, box), Object.values(cells)), box, cells, link, credit, drawn: "" };
  };
  const fill = (entry, r) => {
    const drawn = JSON.stringify(r);
    if (entry.drawn === drawn) return;
    entry.drawn = drawn;
    const { cells, link, box, credit } = entry;
    box.setAttribute("aria-label", `choose ${r.name}`);
    link.textContent = r.name;
    const note = cells.name.lastChild;
    note.textContent = r.notes.join(" ");
    note.hidden = !r.notes.length;
    if (r.recorded && !credit.isConnected) cells.name.firstChild.append(" ", credit);
    credit.setAttribute("aria-label", `credit of ${r.name}`);
    cells.state.replaceChildren(state(r.state));
    cells.algorithm.textContent = r.algorithm || "–";
    cells.environment.textContent = r.environment || "–";
    cells.seed.textContent = r.seed ?? "–";
    const left = r.state === "running" && r.steps && r.seconds_a_step ? (r.steps - (r.step || 0)) * r.seconds_a_step : null;
    const bar = r.steps && r.state !== "finished" ? h("progress", { max: r.steps, value: r.step || 0, "aria-label": `steps of ${r.name}` }) : null;
    cells.step.replaceChildren(h("div", {}, r.steps ? `${r.step ?? 0} / ${r.steps}` : `${r.step ?? 0}`), ...(bar ? [bar] : []),
      ...(left ? [h("div", { class: "quiet small" }, `${duration(left)} left`)] : []));
    cells.success.replaceChildren(...(r.spark.length ? [spark(r.spark, `success over training, now ${percent(r.success)}`)] : []),
      h("span", {}, percent(r.success)));
    cells.after.replaceChildren(...(r.split == null ? ["–"] : [
      h("div", {}, r.after == null ? percent(r.before) : percent(r.after)),
      h("div", { class: "quiet small" }, r.after == null ? `${r.split}, before training`
        : r.before == null ? r.split : `${r.split}, ${points(r.after - r.before)} points`)]));
    cells.updated.setAttribute("data-at", r.updated ?? "");
  };
  const buttons = () => {
    const here = [...chosen].filter(id => store.runs.has(id));
    compare.textContent = here.length ? `Compare ${here.length} run${here.length > 1 ? "s" : ""}` : "Compare all shown";
    clear.hidden = !here.length;
  };
  const visible = () => {
    const words = settings.words.toLowerCase().split(/\s+/).filter(Boolean);
    const [, , value, text] = COLUMNS.find(([key]) => key === settings.sort);
    const sign = settings.down ? -1 : 1;
    return [...store.runs.values()]
      .filter(r => (!settings.state || r.state === settings.state)
        && words.every(word => `${r.name} ${r.algorithm} ${r.environment} ${r.model} seed ${r.seed}`.toLowerCase().includes(word)))
      .sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        const order = text && typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
        return sign * order || a.name.localeCompare(b.name, "en", { numeric: true });
      });
  };
  const ages = () => {
    const now = Date.now() / 1000 + store.ahead;
    for (const cell of body.querySelectorAll("[data-at]")) {
      const text = cell.dataset.at ? `${duration(now - +cell.dataset.at)} ago` : "–";
      if (cell.textContent !== text) cell.textContent = text;
    }
  };
  const draw = () => {
    const runs = visible();
    for (const th of heads) {
      const on = th.dataset.key === settings.sort;
      if (on) th.setAttribute("aria-sort", settings.down ? "descending" : "ascending"); else th.removeAttribute("aria-sort");
    }
    for (const id of [...rows.keys()]) if (!store.runs.has(id)) { rows.get(id).node.remove(); rows.delete(id); }
    let after = null;
    const keep = new Set(runs.map(r => r.id));
    for (const [id, entry] of rows) if (!keep.has(id)) entry.node.remove();
    for (const r of runs) {
      if (!rows.has(r.id)) rows.set(r.id, row(r.id));
      const entry = rows.get(r.id);
      fill(entry, r);
      const next = after ? after.nextSibling : body.firstChild;
      if (next !== entry.node) body.insertBefore(entry.node, next);
      after = entry.node;
    }
    ages();
    buttons();
    count.textContent = store.loaded ? `${runs.length} of ${store.runs.size} runs` : "";
    notices.replaceChildren(...store.notices.map(text => h("p", { class: "quiet" }, text)));
    grid.hidden = !store.runs.size;
    empty.hidden = !!store.runs.size;
    if (!store.runs.size) empty.replaceChildren(...nothing());
  };
  const nothing = () => store.error
    ? [h("p", { role: "alert" }, store.error)]
    : !store.loaded ? [h("p", {}, "reading …")]
    : [h("p", { class: "lead" }, "There is no run here yet."),
      h("p", { class: "quiet" }, `This page looks into ${store.folder} and shows runs as they appear. To begin one:`),
      h("pre", {}, "empg train")];
  compare.addEventListener("click", () => {
    const ids = [...chosen].filter(id => store.runs.has(id));
    location.hash = place("compare", ...(ids.length ? ids : visible().map(r => r.id)));
  });
  clear.addEventListener("click", () => {
    chosen.clear();
    for (const entry of rows.values()) entry.box.checked = false;
    buttons();
  });
  search.addEventListener("input", () => { settings.words = search.value; draw(); });
  states.addEventListener("change", () => { settings.state = states.value; draw(); });
  const stop = follow(draw), clock = setInterval(ages, 5000);
  draw();
  return () => { stop(); clearInterval(clock); };
}
