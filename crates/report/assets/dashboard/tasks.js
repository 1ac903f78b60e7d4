// The tasks of a run: success by type over the evaluations, the panel, and what training met.
import { ask, h, percent, place, points, table } from "./dom.js";
import { follow } from "./live.js";

export function tasks(host, id) {
  const status = h("p", { class: "quiet", role: "status" }, "reading …");
  const body = h("div", {});
  host.append(status, body);
  const abort = new AbortController();
  let drawn = "";
  const load = async () => {
    try {
      const data = await ask("tasks", { id }, abort.signal);
      const text = JSON.stringify(data);
      status.textContent = data.notes.join(" ");
      if (text === drawn) return;
      drawn = text;
      const training = body.querySelector(".training") || met(id, abort.signal);
      body.replaceChildren(...evaluations(data), training, ...panels(data));
    } catch (error) {
      if (error.name !== "AbortError") status.textContent = error.message;
    }
  };
  const stop = follow(changed => { if (changed.has(id)) load(); });
  load();
  return () => { stop(); abort.abort(); };
}

const bar = (value, label) => {
  const node = h("meter", { min: 0, max: 1, value: value ?? 0, "aria-label": label });
  return h("span", { class: "metered" }, node, percent(value));
};

function evaluations({ evaluations }) {
  const splits = [...new Set(evaluations.flatMap(e => e.splits.map(s => s.split)))];
  if (!splits.length) return [h("p", {}, "The run has not been evaluated yet.")];
  return splits.flatMap(split => {
    const all = evaluations.map(e => [e.step, e.splits.find(s => s.split === split)]).filter(([, s]) => s);
    const before = all.find(([step]) => step === 0)?.[1], last = all.filter(([step]) => step > 0).at(-1);
    const kinds = [...new Set(all.flatMap(([, s]) => Object.keys(s.by_task)))].sort();
    const between = all.filter(([step]) => step > 0 && step !== last?.[0]);
    const head = [h("tr", {}, ["task type", "before training", ...between.map(([step]) => `step ${step}`), last ? `step ${last[0]}` : "after", "change"]
      .map(word => h("th", { scope: "col" }, word)))];
    const row = (title, of, total) => {
      const [b, a] = [before && of(before), last && of(last[1])];
      return h("tr", { class: total ? "all" : null }, h("th", { scope: "row" }, title), h("td", {}, bar(b, `${title} before`)),
        between.map(([, s]) => h("td", {}, percent(of(s)))), h("td", {}, bar(a, `${title} after`)),
        h("td", {}, a == null || b == null ? "–" : `${points(a - b)}`));
    };
    const episodes = (last?.[1] ?? before)?.episodes;
    return [h("h2", {}, `${split} tasks`), h("p", { class: "quiet" }, `${episodes ?? "–"} episodes an evaluation; the same tasks each time.`),
      table(`success on ${split} tasks`, head, [...kinds.map(k => row(k, s => s.by_task[k])), row("all", s => s.success, true)])];
  });
}

// Tasks of the recorded batches: how often each was won.
function met(id, signal) {
  const details = h("details", { class: "training" }, h("summary", {}, "Tasks that training met, in the recorded batches"));
  details.addEventListener("toggle", async () => {
    if (!details.open || details.childElementCount > 1) return;
    const host = h("div", {}, h("p", { class: "quiet", role: "status" }, "reading …"));
    details.append(host);
    try {
      const c = await ask("episodes", { id, step: "all" }, signal);
      const found = new Map();
      c.task.forEach((task, i) => {
        const key = `${c.step[i]} ${task} ${c.group[i]}`;
        const t = found.get(key) || { step: c.step[i], group: c.group[i], rollout: c.rollout[i], task: c.texts[task], kind: c.texts[c.kind[i]], n: 0, won: 0, errors: 0 };
        t.n++;
        t.won += c.won[i];
        t.errors += c.errors[i];
        found.set(key, t);
      });
      const rows = [...found.values()].sort((a, b) => a.won / a.n - b.won / b.n || b.errors - a.errors);
      const head = [h("tr", {}, ["task", "type", "step", "won", "confident errors"].map(word => h("th", { scope: "col", class: word === "type" ? "text" : null }, word)))];
      host.replaceChildren(h("p", { class: "quiet" }, `${rows.length} groups of rollouts; those won least come first${rows.length > 500 ? ", 500 of them are shown" : ""}.`),
        table("tasks that training met", head, rows.slice(0, 500).map(t => h("tr", {},
          h("th", { scope: "row", class: "mono" }, h("a", { href: place("run", id, "credit", String(t.step), `${t.group}.${t.rollout}`) }, t.task)),
          h("td", { class: "text" }, t.kind), [t.step, `${t.won} of ${t.n}`, t.errors].map(cell => h("td", {}, String(cell)))))));
    } catch (error) {
      if (error.name !== "AbortError") host.replaceChildren(h("p", { role: "alert" }, error.message));
    }
  });
  return details;
}

function panels({ panels }) {
  return panels.map(({ name, count, tasks }) => {
    const head = [h("tr", {}, ["task", "type", "initial policy"].map(word => h("th", { scope: "col", class: word === "task" ? null : "text" }, word)))];
    const known = tasks.some(t => t.won_before != null);
    return h("details", {}, h("summary", {}, `The panel of ${name} tasks: ${count}`),
      h("p", { class: "quiet" }, known ? "Outcomes of single tasks are known where the run kept the initial policy's episodes for the entropy dynamics."
        : "The run did not keep the outcomes of single tasks."),
      table(`panel of ${name} tasks`, head, tasks.slice(0, 1000).map(t => h("tr", {}, h("th", { scope: "row", class: "mono" }, t.id), h("td", { class: "text" }, t.kind),
        h("td", { class: `text ${t.won_before == null ? "" : t.won_before ? "won" : "lost"}` }, t.won_before == null ? "–" : t.won_before ? "won" : "lost")))));
  });
}
