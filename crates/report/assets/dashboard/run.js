// One run: its curves, tasks, credit and settings.
import { ask, duration, h, number, percent, place, points, state } from "./dom.js";
import { follow, store } from "./live.js";
import { compared } from "./compare.js";
import { tasks } from "./tasks.js";

const TABS = [["curves", "Curves"], ["tasks", "Tasks"], ["credit", "Credit"], ["settings", "Settings"]];

export function run(main, [id, tab = "curves", ...rest]) {
  const title = h("h1", { tabindex: "-1" });
  const facts = h("p", { class: "facts" });
  const notes = h("div", { class: "notices" });
  main.append(h("nav", { class: "crumbs", "aria-label": "where" }, h("a", { href: "#/" }, "Runs")), title, facts, notes,
    h("nav", { class: "tabs", "aria-label": "views of the run" }, TABS.map(([key, text]) =>
      h("a", { href: place("run", id, key), "aria-current": key === tab ? "page" : null }, text))));
  const host = h("div", {});
  main.append(host);
  const draw = () => {
    const r = store.runs.get(id);
    if (!r) {
      title.textContent = id;
      facts.textContent = store.loaded ? "This run is not in the folder (any more)." : "reading …";
      return;
    }
    title.textContent = r.name;
    const left = r.state === "running" && r.steps && r.seconds_a_step ? `${duration((r.steps - (r.step || 0)) * r.seconds_a_step)} left` : null;
    const held = r.split == null ? null : r.after == null ? `${r.split} tasks ${percent(r.before)} before training`
      : `${r.split} tasks ${percent(r.before)} → ${percent(r.after)}${r.before == null ? "" : ` (${points(r.after - r.before)} points)`}`;
    const parts = [r.algorithm, r.environment, r.seed == null ? null : `seed ${r.seed}`,
      r.steps ? `step ${r.step ?? 0} of ${r.steps}` : `step ${r.step ?? 0}`, left,
      r.success == null ? null : `training success ${percent(r.success)}`, held].filter(Boolean);
    facts.replaceChildren(state(r.state), ...parts.map(text => h("span", {}, text)));
    notes.replaceChildren(...r.notes.map(text => h("p", { class: "quiet" }, text)));
  };
  const stop = follow(changed => { if (changed.has(id) || changed.has("")) draw(); });
  draw();
  const view = { curves: () => compared(host, [id], ["curves", "success"]), settings: () => compared(host, [id], ["settings"]),
    tasks: () => tasks(host, id), credit: () => credit(host, id, rest) }[tab];
  const leave = view ? view() : () => {};
  if (!view) host.append(h("p", {}, "There is no such view of a run."));
  const end = () => { stop(); leave(); };
  end.moved = ([, , ...parts]) => leave.moved?.(parts);
  return end;
}

// #/run/ID/credit/STEP/GROUP.ROLLOUT
function credit(host, id, [step, place_of]) {
  const picker = h("select", { "aria-label": "recorded step" });
  const status = h("p", { class: "quiet wide", role: "status" });
  const body = h("div", {});
  host.append(h("p", { class: "quiet wide" }, "Every agent step with its credit: its colour is the final advantage, the shade of a token its entropy. "
    + "Choose a step for what its credit is made of."), status, body);
  const abort = new AbortController();
  let shown = null, steps = [], gone = false, serial = 0;

  const options = async () => {
    const facts = await ask("run", { id }, abort.signal);
    const now = facts.recorded.map(([s]) => s);
    if (now.join() === steps.join()) return;
    const follows = shown == null || (shown === steps.at(-1) && !step);
    steps = now;
    picker.replaceChildren(...steps.map(s => h("option", { value: s }, `step ${s}`)),
      ...(steps.length > 1 ? [h("option", { value: "all" }, `all ${steps.length} recorded steps`)] : []));
    if (shown != null) picker.value = String(shown);
    if (!steps.length) body.replaceChildren(h("p", { class: "empty" }, "No episodes have been recorded yet. Settings: record.trajectories_every."));
    else if (shown == null || (follows && document.activeElement?.closest(".viewer") == null)) await show(shown == null ? wanted() : steps.at(-1));
    else if (steps.at(-1) !== shown) status.textContent = `step ${steps.at(-1)} has been recorded since`;
  };
  const wanted = () => step === "all" && steps.length > 1 ? "all" : steps.includes(+step) ? +step : steps.at(-1);
  const show = async of => {
    const mine = ++serial;
    shown = of;
    picker.value = String(of);
    status.textContent = "reading …";
    try {
      const source = await fetched(id, of, abort.signal);
      if (mine !== serial || gone) return;
      status.textContent = source.notes.join(" ");
      body.replaceChildren();
      const selected = source.all.findIndex(s => `${s.step}.${s.group}.${s.rollout}` === place_of || (s.step === of && `${s.group}.${s.rollout}` === place_of));
      globalThis.empgViewer(body, source, {
        lead: picker,
        selected: selected < 0 ? undefined : selected,
        chosen: i => {
          const s = source.all[i];
          place_of = of === "all" ? `${s.step}.${s.group}.${s.rollout}` : `${s.group}.${s.rollout}`;
          // The address can be shared; the way back leads to the list.
          history.replaceState(null, "", place("run", id, "credit", String(of), place_of));
        },
      });
    } catch (error) {
      if (error.name !== "AbortError") status.textContent = error.message;
    }
  };
  picker.addEventListener("change", () => {
    step = picker.value;
    place_of = undefined;
    show(picker.value === "all" ? "all" : +picker.value);
  });
  const look = () => options().catch(error => { if (error.name !== "AbortError") status.textContent = error.message; });
  const stop = follow(changed => { if (changed.has(id)) look(); });
  look();
  const end = () => { gone = true; stop(); abort.abort(); };
  end.moved = ([to, episode]) => {
    if (String(shown) === to && episode === place_of) return;
    step = to;
    place_of = episode;
    if (steps.length) show(wanted());
  };
  return end;
}

// Episodes that are fetched when they are looked at; the last ones are kept.
const KEPT = 64;
async function fetched(id, step, signal) {
  const c = await ask("episodes", { id, step }, signal);
  const all = c.step.map((s, i) => ({
    source: c.source, step: s, group: c.group[i], rollout: c.rollout[i], task: c.texts[c.task[i]], kind: c.texts[c.kind[i]],
    end: c.texts[c.end[i]], reward: c.reward[i], won: !!c.won[i], turns: c.turns[i], entropy: c.entropy[i], credit: c.credit[i],
    errors: c.errors[i], uncertain: c.uncertain[i],
  }));
  const places = new Map(all.map((s, i) => [`${s.step}.${s.group}.${s.rollout}`, i]));
  const kept = new Map();
  const once = (key, make) => {
    if (!kept.has(key)) {
      const made = make();
      kept.set(key, made);
      made.catch(() => kept.delete(key));
      if (kept.size > KEPT) kept.delete(kept.keys().next().value);
    }
    return kept.get(key);
  };
  return {
    all,
    notes: c.notes,
    load: i => {
      const s = all[i];
      return once(`e${i}`, () => ask("episode", { id, step: s.step, group: s.group, rollout: s.rollout }, signal));
    },
    group: i => {
      const s = all[i];
      return once(`g${s.step}.${s.group}`, async () => (await ask("group", { id, step: s.step, group: s.group }, signal))
        .map(r => ({ i: places.get(`${s.step}.${s.group}.${r.rollout}`), advantage: r.advantage, h_norm: r.h_norm })));
    },
    search: async words => new Set(await ask("search", { id, step, q: words }, signal)),
  };
}
