"use strict";
// The credit viewer: a list of episodes, one episode as a conversation, every step with its credit,
// the other rollouts of its task beside it. What is shown comes from a source: the report holds all
// episodes, the dashboard fetches those that are looked at.
//
// source = {
//   all: [{ source, step, group, rollout, task, kind, end, reward, won, turns, entropy, credit,
//           errors, uncertain }],          summaries, in order; reward may be null
//   load(i) -> Promise of episode i,
//   group(i) -> Promise of [{ i, advantage: [], h_norm: [] }], the rollouts of its task,
//   search(words) -> Promise of a Set of places,
// }
const EMPG_ROW = 48;
// Turns that are built at once; the rest of a long episode follows frame by frame.
const EMPG_TURNS = 40;

function empgElement(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === false || value == null) continue;
    if (key === "class") node.className = value;
    else if (key === "onclick") node.addEventListener("click", value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter(c => c != null));
  return node;
}

// Sure of itself, blamed, in an episode that was lost; and unsure where it went well. The
// dashboard's summaries have the same bounds.
const empgConfidentError = (won, t) => !won && t.h_norm < 0.25 && t.advantage < 0;
const empgUncertainSuccess = (won, t) => won && t.h_norm > 0.75 && t.base > 0;

function empgSummary(e) {
  const n = Math.max(1, e.turns.length), sum = f => e.turns.reduce((s, t) => s + f(t), 0);
  return {
    source: e.source, step: e.step, group: e.group, rollout: e.rollout, task: e.task, kind: e.kind,
    end: e.end, reward: e.reward, won: e.won, turns: e.turns.length,
    entropy: sum(t => t.h) / n,
    credit: sum(t => Math.abs(t.advantage)) / n,
    errors: e.turns.filter(t => empgConfidentError(e.won, t)).length,
    uncertain: e.turns.filter(t => empgUncertainSuccess(e.won, t)).length,
  };
}

// A source of episodes that are here already.
function empgEmbedded(episodes) {
  const key = e => JSON.stringify([e.source, e.step, e.group]);
  const groups = new Map();
  episodes.forEach((e, i) => {
    const k = key(e);
    if (!groups.has(k)) groups.set(k, []);
    groups.get(k).push(i);
  });
  return {
    all: episodes.map(empgSummary),
    load: async i => episodes[i],
    group: async i => groups.get(key(episodes[i])).map(k => ({
      i: k, advantage: episodes[k].turns.map(t => t.advantage), h_norm: episodes[k].turns.map(t => t.h_norm),
    })),
    search: async words => {
      const has = text => text.toLowerCase().includes(words);
      return new Set(episodes.flatMap((e, i) =>
        has(e.task) || e.turns.some(t => has(t.observation) || has(t.action)) ? [i] : []));
    },
  };
}

const EMPG_ORDERS = [
  ["", "in order"], ["errors", "confident errors first"], ["uncertain", "uncertain successes first"],
  ["reward", "highest return first"], ["-reward", "lowest return first"],
  ["entropy", "highest entropy first"], ["-entropy", "lowest entropy first"],
  ["credit", "largest credit first"], ["-credit", "smallest credit first"],
  ["turns", "longest first"], ["-turns", "shortest first"],
];

// Three digits are enough where many numbers stand together.
const empgShort = v => v == null || !Number.isFinite(v) ? "–" : Math.abs(v) >= 1000 || (v !== 0 && Math.abs(v) < 1e-3) ? empgFormat(v) : String(+v.toPrecision(3)).replace("-", "−");

let empgViewers = 0;

// Shows a source. `options.selected` is the place shown first, `options.chosen(i)` is told which one
// is looked at, `options.lead` stands before the filters.
function empgViewer(host, given, options = {}) {
  const source = Array.isArray(given) ? empgEmbedded(given) : given;
  const all = source.all, prefix = `empg-${empgViewers++}-row-`;
  const distinct = of => [...new Set(all.map(of))];
  const kinds = distinct(s => s.kind).filter(Boolean).sort();
  const steps = distinct(s => JSON.stringify([s.source, s.step]));
  const select = (label, choices) => empgElement("select", { "aria-label": label },
    choices.map(([value, text]) => empgElement("option", { value }, text)));
  const outcome = select("outcome", [["", "won and lost"], ["won", "won"], ["lost", "lost"]]);
  const kind = select("task type", [["", "all task types"], ...kinds.map(k => [k, k])]);
  const from = select("where from", [["", "all steps"], ...steps.map(s => {
    const [name, step] = JSON.parse(s);
    return [s, `${name} · step ${step}`];
  })]);
  const marks = select("marks", [["", "any marks"], ["errors", "with confident errors"], ["uncertain", "with uncertain successes"]]);
  const measure = select("measure", [["", "any values"], ["reward", "return"], ["entropy", "entropy"], ["credit", "credit"], ["turns", "steps"]]);
  const bound = label => empgElement("input", { type: "number", step: "any", class: "bound", "aria-label": label, placeholder: label });
  const least = bound("least"), most = bound("most");
  const bounds = empgElement("span", { class: "bounds", hidden: true }, least, " to ", most);
  const order = select("order", EMPG_ORDERS);
  const search = empgElement("input", { type: "search", placeholder: "search text", "aria-label": "search text" });
  const count = empgElement("span", { class: "quiet", role: "status" });
  const list = empgElement("div", { class: "list", role: "listbox", tabindex: "0", "aria-label": "episodes" });
  const inner = empgElement("div", { class: "rows", role: "presentation" });
  list.append(inner);
  const group = empgElement("aside", { class: "group", "aria-label": "rollouts of the same task" });
  const panel = empgElement("article", { class: "episode", "aria-label": "episode", tabindex: "-1" });
  host.append(
    empgElement("div", { class: "controls", role: "group", "aria-label": "filter and order" }, options.lead, search, outcome,
      kinds.length > 1 ? kind : null, steps.length > 1 ? from : null, marks, measure, bounds, order, count),
    empgElement("div", { class: "viewer" }, list, panel, group),
    empgElement("details", { class: "keys" }, empgElement("summary", {}, "Keys"),
      empgElement("p", { class: "quiet" },
        "In the list: ↑ ↓ or j k, Page Up and Page Down, Home and End; Enter goes to the episode. In the episode: ↑ ↓ between "
        + "its steps, Enter opens what a step's credit is made of, e goes to the next marked step, [ and ] to the other rollouts "
        + "of the task, Escape back to the list. / searches.")));

  // Rows are a few nodes that are used again while the list scrolls.
  let shown = all.map((_, i) => i), current = -1, frame = 0;
  const pool = [];
  const row = () => {
    const node = empgElement("div", { class: "row", role: "option" }, empgElement("span", {}), empgElement("i", {}), empgElement("small", {}));
    node.addEventListener("click", () => choose(node.place));
    return node;
  };
  const fill = (node, at) => {
    const s = all[shown[at]];
    node.place = at;
    node.entry = shown[at];
    node.id = prefix + at;
    node.setAttribute("aria-setsize", shown.length);
    node.setAttribute("aria-posinset", at + 1);
    node.style.transform = `translateY(${at * EMPG_ROW}px)`;
    node.firstChild.className = s.won ? "won" : "lost";
    node.firstChild.textContent = s.kind || s.task;
    const extra = (s.errors ? ` · ${s.errors} confident error${s.errors > 1 ? "s" : ""}` : "")
      + (s.uncertain ? ` · ${s.uncertain} uncertain success${s.uncertain > 1 ? "es" : ""}` : "");
    node.children[1].textContent = `${s.group}.${s.rollout}`;
    node.lastChild.textContent = `return ${empgShort(s.reward)} · ${s.turns} step${s.turns === 1 ? "" : "s"} · H ${empgShort(s.entropy)}${extra}`;
  };
  const rows = () => {
    frame = 0;
    const space = list.clientHeight || 500;
    const top = Math.max(0, Math.floor(list.scrollTop / EMPG_ROW) - 6);
    const end = Math.min(shown.length, top + Math.ceil(space / EMPG_ROW) + 12);
    while (pool.length < end - top) {
      const node = row();
      pool.push(node);
      inner.append(node);
    }
    for (let at = top; at < end; at++) {
      const node = pool[at % pool.length];
      if (node.place !== at || node.entry !== shown[at]) fill(node, at);
      node.hidden = false;
      node.setAttribute("aria-selected", String(at === current));
    }
    for (const node of pool) if (!(node.place >= top && node.place < end)) { node.hidden = true; node.place = -1; }
    if (current >= top && current < end) list.setAttribute("aria-activedescendant", prefix + current);
    else list.removeAttribute("aria-activedescendant");
  };
  const soon = () => { frame ||= requestAnimationFrame(rows); };

  // What is shown, or about to be; and the rollouts of its task.
  let turn = 0, showing = -1, members = [];
  const show = async i => {
    const mine = ++turn;
    showing = i;
    panel.setAttribute("aria-busy", "true");
    options.chosen?.(i);
    try {
      const [e, rollouts] = await Promise.all([source.load(i), source.group(i)]);
      if (mine !== turn) return;
      const view = empgEpisode(panel, e, all[i]);
      members = rollouts.map(r => r.i);
      empgGroup(group, i, all, rollouts, go, view.reveal);
    } catch (error) {
      if (mine !== turn) return;
      panel.replaceChildren(empgElement("p", { class: "empty", role: "alert" }, `This episode cannot be shown: ${error.message}`));
      group.replaceChildren();
    }
    panel.removeAttribute("aria-busy");
  };
  const choose = at => {
    current = Math.max(0, Math.min(shown.length - 1, at));
    const y = current * EMPG_ROW;
    if (y < list.scrollTop) list.scrollTop = y;
    if (y + EMPG_ROW > list.scrollTop + list.clientHeight) list.scrollTop = y + EMPG_ROW - list.clientHeight;
    rows();
    show(shown[current]);
  };
  // An episode by its place among all, also where the filter hides it.
  const go = i => {
    const at = shown.indexOf(i);
    if (at >= 0) choose(at); else { current = -1; rows(); show(i); }
  };

  let searched = "", hits = null;
  const apply = first => {
    const value = (i, key) => all[i][key] ?? -Infinity;
    const key = measure.value, low = least.value === "" ? -Infinity : +least.value, high = most.value === "" ? Infinity : +most.value;
    bounds.hidden = !key;
    const place = from.value && JSON.parse(from.value);
    shown = [];
    all.forEach((s, i) => {
      if ((!outcome.value || (outcome.value === "won") === !!s.won)
        && (!kind.value || s.kind === kind.value)
        && (!place || (s.source === place[0] && s.step === place[1]))
        && (!marks.value || s[marks.value] > 0)
        && (!key || (value(i, key) >= low && value(i, key) <= high))
        && (!hits || hits.has(i))) shown.push(i);
    });
    if (order.value) {
      const by = order.value.replace("-", ""), sign = order.value.startsWith("-") ? -1 : 1;
      shown.sort((a, b) => sign * (value(b, by) - value(a, by)) || a - b);
    }
    count.textContent = `${shown.length.toLocaleString("en")} of ${all.length.toLocaleString("en")} episodes`;
    inner.style.height = shown.length * EMPG_ROW + "px";
    for (const node of pool) node.place = -1;
    list.scrollTop = 0;
    const wanted = Number.isInteger(first) ? shown.indexOf(first) : 0;
    if (shown.length) choose(Math.max(0, wanted));
    else {
      turn++;
      current = -1;
      rows();
      group.replaceChildren();
      panel.replaceChildren(empgElement("p", { class: "empty" }, all.length ? "No episode matches." : "There are no episodes."));
    }
  };
  let typing = 0;
  const find = () => {
    clearTimeout(typing);
    typing = setTimeout(async () => {
      const words = search.value.trim().toLowerCase();
      if (words === searched) return;
      searched = words;
      if (!words) { hits = null; apply(); return; }
      count.textContent = "searching …";
      try {
        const found = await source.search(words);
        if (words !== searched) return;
        hits = found;
        apply();
      } catch (error) {
        count.textContent = `the search failed: ${error.message}`;
      }
    }, 150);
  };
  list.addEventListener("scroll", soon, { passive: true });
  new ResizeObserver(soon).observe(list);
  list.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(list.clientHeight / EMPG_ROW) - 1);
    const move = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -1e9, End: 1e9 }[event.key];
    if (move) { event.preventDefault(); if (shown.length) choose(current + move); }
    else if (event.key === "Enter") { event.preventDefault(); (panel.querySelector(".step") || panel).focus(); }
  });
  host.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT)$/.test(event.target.tagName)) return;
    if (event.key === "/") { event.preventDefault(); search.focus(); }
    if (event.key !== "[" && event.key !== "]") return;
    const at = members.indexOf(showing), next = at < 0 ? undefined : members[at + (event.key === "]" ? 1 : -1)];
    if (next != null) { event.preventDefault(); go(next); }
  });
  panel.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const buttons = [...panel.querySelectorAll(".step")], at = buttons.indexOf(document.activeElement);
    let next = null;
    if (event.key === "ArrowDown" && at >= 0) next = buttons[at + 1];
    else if (event.key === "ArrowUp" && at >= 0) next = buttons[at - 1];
    else if (event.key === "e") next = buttons.find((b, k) => k > at && b.classList.contains("marked")) || buttons.find(b => b.classList.contains("marked"));
    else if (event.key === "Escape") next = list;
    if (next) { event.preventDefault(); next.focus(); next.scrollIntoView({ block: "nearest" }); }
  });
  for (const control of [outcome, kind, from, marks, measure, order]) control.addEventListener("change", apply);
  for (const control of [least, most]) control.addEventListener("input", apply);
  search.addEventListener("input", find);
  apply(options.selected);
}

const empgSigned = v => (v > 0 ? "+" : "") + empgShort(v).replace("-", "−");
const empgTint = (v, largest, low, high) =>
  `rgba(var(--${v >= 0 ? "good" : "bad"}), ${(low + (high - low) * Math.min(1, Math.abs(v) / largest)).toFixed(3)})`;

// One episode. Gives what brings a step into view.
function empgEpisode(panel, e, s) {
  const largest = Math.max(1e-9, ...e.turns.map(t => Math.abs(t.advantage)));
  const header = empgElement("header", {},
    empgElement("div", {}, empgElement("strong", { class: e.won ? "won" : "lost" }, e.kind || "episode"),
      ` return ${empgShort(e.reward)} · ${e.turns.length} step${e.turns.length === 1 ? "" : "s"}` + (e.end ? ` · ${e.end}` : "")
      + (s.errors ? ` · ${s.errors} confident error${s.errors > 1 ? "s" : ""}` : "")
      + (s.uncertain ? ` · ${s.uncertain} uncertain success${s.uncertain > 1 ? "es" : ""}` : "")),
    empgElement("div", { class: "quiet mono task" }, e.task),
    empgElement("div", { class: "scale quiet", "aria-hidden": "true" },
      "credit −", empgElement("i", { class: "credit-scale" }), "+ ", empgElement("i", { class: "shade-scale" }), " token entropy 0 … 2 nats"));
  const body = empgElement("div", { class: "turns" });
  // Who was in the episode before stays in this one.
  const within = panel.contains(document.activeElement);
  panel.replaceChildren(header, body);
  if (within) panel.focus({ preventScroll: true });
  let built = 0;
  const build = upTo => {
    const part = document.createDocumentFragment();
    for (; built < Math.min(upTo, e.turns.length); built++) part.append(empgTurn(e, built, largest));
    body.append(part);
  };
  build(EMPG_TURNS);
  const more = () => {
    if (!body.isConnected || built >= e.turns.length) return;
    build(built + EMPG_TURNS);
    requestAnimationFrame(more);
  };
  requestAnimationFrame(more);
  return {
    reveal: k => {
      build(k + 1);
      const step = body.children[k]?.querySelector(".step");
      step?.scrollIntoView({ block: "center" });
      step?.focus({ preventScroll: true });
    },
  };
}

function empgTurn(e, k, largest) {
  const t = e.turns[k];
  const mark = empgConfidentError(e.won, t) ? "confident error" : empgUncertainSuccess(e.won, t) ? "uncertain success" : null;
  const number = (name, value) => empgElement("span", {}, `${name} `, empgElement("b", {}, value));
  const step = empgElement("button", { class: mark ? "step marked" : "step", type: "button", "aria-expanded": "false" },
    empgWords(t),
    empgElement("span", { class: "numbers" }, number("credit", empgSigned(t.advantage)), number("H", empgShort(t.h)),
      number("g", empgShort(t.g)), number("bonus", empgSigned(t.bonus)), mark ? empgElement("span", { class: "mark" }, mark) : null));
  step.style.borderLeftColor = empgTint(t.advantage, largest, 0.5, 1);
  step.style.backgroundColor = empgTint(t.advantage, largest, 0.03, 0.26);
  const long = t.observation.length > 600;
  const turn = empgElement("section", { class: "turn", "aria-label": `step ${k + 1}` },
    t.observation ? empgElement("div", { class: long ? "observation long" : "observation", tabindex: long ? "0" : null,
      role: long ? "region" : null, "aria-label": long ? `observation of step ${k + 1}` : null }, t.observation) : null,
    step);
  step.addEventListener("click", () => {
    const open = turn.querySelector(".waterfall");
    step.setAttribute("aria-expanded", String(!open));
    if (open) open.remove(); else turn.append(empgWaterfall(t));
  });
  return turn;
}

// What the agent wrote, its tokens shaded by entropy where they are known; their texts together are what it wrote.
function empgWords(t) {
  const words = empgElement("span", { class: "words" });
  if (!t.tokens?.length || t.entropies?.length !== t.tokens.length) {
    words.append(t.action || "(nothing)");
    return words;
  }
  t.tokens.forEach((token, n) => {
    const span = empgElement("span", { title: `entropy ${empgShort(t.entropies[n])} nats`, class: /^ ?<\|.*\|>$/.test(token) ? "special" : null }, token);
    span.style.backgroundColor = `rgba(var(--shade), ${Math.min(0.5, Math.max(0, t.entropies[n]) / 4).toFixed(3)})`;
    words.append(span);
  });
  return words;
}

// The task's rollouts, each with a strip of its steps' credit.
function empgGroup(host, i, all, rollouts, go, reveal) {
  const largest = Math.max(1e-9, ...rollouts.flatMap(r => r.advantage.map(Math.abs)));
  const longest = Math.max(1, ...rollouts.map(r => r.advantage.length));
  const strip = r => {
    const n = r.advantage.length;
    const node = empgElement("span", { class: "strip", "aria-hidden": "true" });
    node.style.width = `${Math.max(4, 100 * n / longest)}%`;
    const stops = r.advantage.map((a, k) => `${empgTint(a, largest, 0.16, 1)} ${(100 * k / n).toFixed(2)}% ${(100 * (k + 1) / n).toFixed(2)}%`);
    if (n) node.style.backgroundImage = `linear-gradient(90deg, ${stops.join(", ")})`;
    if (r.i === i) {
      node.classList.add("own");
      node.title = "a click shows the step";
      node.addEventListener("click", event => {
        event.stopPropagation();
        const box = node.getBoundingClientRect();
        reveal(Math.min(n - 1, Math.max(0, Math.floor((event.clientX - box.left) / box.width * n))));
      });
    }
    return node;
  };
  const won = rollouts.filter(r => all[r.i]?.won).length, within = host.contains(document.activeElement);
  host.replaceChildren(
    empgElement("h3", {}, "The task's rollouts"),
    empgElement("p", { class: "quiet" }, `${won} of ${rollouts.length} won. A cell is a step, coloured by its credit.`),
    ...rollouts.filter(r => all[r.i]).map(r => {
      const s = all[r.i];
      const label = `${s.won ? "won" : "lost"}, return ${empgShort(s.reward)}, ${s.turns} steps, entropy ${empgShort(s.entropy)}`;
      return empgElement("button", { type: "button", "aria-current": String(r.i === i), "aria-label": label, onclick: () => go(r.i) },
        empgElement("span", { class: s.won ? "won" : "lost" }, empgShort(s.reward)),
        empgElement("small", {}, `${s.turns} step${s.turns === 1 ? "" : "s"} · H ${empgShort(s.entropy)}`), strip(r));
    }));
  if (within) host.querySelector("[aria-current=true]")?.focus({ preventScroll: true });
}

const EMPG_SVG = "http://www.w3.org/2000/svg";
function empgShape(tag, attributes, text) {
  const node = document.createElementNS(EMPG_SVG, tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text != null) node.textContent = text;
  return node;
}

// Base advantage → scaled by g → plus bonus → minus centring → final advantage.
function empgWaterfall(t) {
  const scaled = t.base * t.g;
  const bars = [["base A", 0, t.base], ["× g", t.base, scaled], ["+ ζ·f", scaled, scaled + t.bonus],
    ["− mean", scaled + t.bonus, scaled + t.bonus - t.centring], ["credit", 0, t.advantage]];
  const values = bars.flatMap(b => [b[1], b[2]]).concat(0).filter(Number.isFinite);
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  const y = v => 18 + (1 - ((Number.isFinite(v) ? v : 0) - low) / span) * 108;
  const words = `base ${empgFormat(t.base)}, times g ${empgFormat(t.g)}, plus bonus ${empgFormat(t.bonus)}, minus mean ${empgFormat(t.centring)}, credit ${empgFormat(t.advantage)}`;
  const svg = empgShape("svg", { viewBox: "0 0 560 160", role: "img", "aria-label": words });
  svg.append(empgShape("line", { x1: 8, x2: 552, y1: y(0), y2: y(0), class: "zero" }));
  bars.forEach(([name, from, to], i) => {
    const x = 14 + i * 108, top = Math.min(y(from), y(to)), height = Math.max(1.5, Math.abs(y(from) - y(to)));
    const whole = i === 0 || i === 4;
    if (i < 4) svg.append(empgShape("line", { x1: x + 84, x2: x + 108, y1: y(to), y2: y(to), class: "bridge" }));
    svg.append(
      empgShape("rect", { x, y: top, width: 84, height, rx: 2, class: `${to >= from ? "up" : "down"}${whole ? " whole" : ""}` }),
      empgShape("text", { x: x + 42, y: 153, "text-anchor": "middle" }, name),
      empgShape("text", { x: x + 42, y: Math.max(11, top - 4), "text-anchor": "middle" }, whole ? empgShort(to) : empgSigned(to - from)));
  });
  const terms = [["A", empgFormat(t.base)], ["H", `${empgFormat(t.h)} nats`], ["H normalised", empgFormat(t.h_norm)], ["g", empgFormat(t.g)],
    ["f of the next step", t.f_next == null ? "none: the last step" : empgFormat(t.f_next)], ["bonus", empgFormat(t.bonus)],
    ["mean over steps", empgFormat(t.centring)], ["credit", empgFormat(t.advantage)]];
  const known = t.tokens?.length && t.entropies?.length === t.tokens.length;
  return empgElement("div", { class: "waterfall" }, svg,
    empgElement("dl", { class: "terms" }, terms.map(([name, value]) => empgElement("div", {}, empgElement("dt", {}, name), empgElement("dd", {}, value)))),
    known ? empgElement("p", { class: "quiet" }, "Entropy by token: "
      + t.tokens.map((token, n) => `${token.trim() || (token ? "␣" : "…")} ${empgShort(t.entropies[n])}`).join(" · ")) : null);
}
