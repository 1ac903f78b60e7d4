"use strict";
// The credit viewer: a list of episodes, one episode as a conversation, every step with its credit.
const EMPG_ROW = 46;

function empgElement(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === false || value == null) continue;
    if (key === "class") node.className = value;
    else if (key === "onclick") node.addEventListener("click", value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter(c => c != null));
  return node;
}

// A confident error: low entropy, negative credit, in an episode that was lost.
const empgConfidentError = (e, t) => !e.won && t.h_norm < 0.25 && t.advantage < 0;
const empgUncertainSuccess = (e, t) => e.won && t.h_norm > 0.75 && t.base > 0;

function empgSummary(e) {
  const n = Math.max(1, e.turns.length), sum = f => e.turns.reduce((s, t) => s + f(t), 0);
  return {
    entropy: sum(t => t.h) / n,
    credit: sum(t => Math.abs(t.advantage)) / n,
    errors: e.turns.filter(t => empgConfidentError(e, t)).length,
    uncertain: e.turns.filter(t => empgUncertainSuccess(e, t)).length,
  };
}

function empgViewer(host, episodes) {
  const all = episodes.map((e, i) => ({ e, i, s: empgSummary(e) }));
  const kinds = [...new Set(episodes.map(e => e.kind))].filter(Boolean).sort();
  const steps = [...new Set(episodes.map(e => e.source + "\u0000" + e.step))];
  const select = (label, options) => empgElement("select", { "aria-label": label },
    ...options.map(([value, text]) => empgElement("option", { value }, text)));
  const outcome = select("outcome", [["", "won and lost"], ["won", "won"], ["lost", "lost"]]);
  const kind = select("task type", [["", "all task types"], ...kinds.map(k => [k, k])]);
  const from = select("where from", [["", "all steps"], ...steps.map(s => [s, s.split("\u0000").join(" · step ")])]);
  const order = select("order", [["", "in order"], ["errors", "confident errors first"], ["uncertain", "uncertain successes first"],
    ["reward", "highest return first"], ["entropy", "highest entropy first"], ["credit", "largest credit first"]]);
  const search = empgElement("input", { type: "search", placeholder: "search text", "aria-label": "search text" });
  const count = empgElement("span", { class: "quiet", role: "status" });
  const list = empgElement("div", { class: "list", role: "listbox", tabindex: "0", "aria-label": "episodes" });
  const inner = empgElement("div", {});
  list.append(inner);
  const panel = empgElement("article", { class: "episode", "aria-live": "polite" });
  host.append(
    empgElement("div", { class: "controls" }, search, outcome, kind, steps.length > 1 ? from : null, order, count),
    empgElement("div", { class: "viewer" }, list, panel));

  let shown = all, current = 0;
  const rows = () => {
    const top = Math.max(0, Math.floor(list.scrollTop / EMPG_ROW) - 5);
    const end = Math.min(shown.length, top + Math.ceil((list.clientHeight || 500) / EMPG_ROW) + 10);
    inner.style.height = shown.length * EMPG_ROW + "px";
    inner.replaceChildren(...shown.slice(top, end).map(({ e, s }, k) => {
      const at = top + k;
      const marks = (s.errors ? ` · ${s.errors} confident error${s.errors > 1 ? "s" : ""}` : "")
        + (s.uncertain ? ` · ${s.uncertain} uncertain` : "");
      const row = empgElement("div", { class: "row", role: "option", id: "empg-row-" + at, "aria-selected": String(at === current) },
        empgElement("span", { class: e.won ? "won" : "lost" }, e.kind || e.task),
        empgElement("small", {}, `return ${empgFormat(e.reward)} · ${e.turns.length} steps · H ${empgFormat(s.entropy)}${marks}`));
      row.style.top = at * EMPG_ROW + "px";
      row.addEventListener("click", () => choose(at));
      return row;
    }));
    list.setAttribute("aria-activedescendant", "empg-row-" + current);
  };
  const choose = at => {
    current = Math.max(0, Math.min(shown.length - 1, at));
    const y = current * EMPG_ROW;
    if (y < list.scrollTop) list.scrollTop = y;
    if (y + EMPG_ROW > list.scrollTop + list.clientHeight) list.scrollTop = y + EMPG_ROW - list.clientHeight;
    rows();
    empgEpisode(panel, shown[current], all, i => {
      const place = shown.findIndex(x => x.i === i);
      if (place >= 0) choose(place); else empgEpisode(panel, all[i], all, () => {});
    });
  };
  const apply = () => {
    const words = search.value.toLowerCase();
    shown = all.filter(({ e }) => (!outcome.value || (outcome.value === "won") === e.won)
      && (!kind.value || e.kind === kind.value)
      && (!from.value || from.value === e.source + "\u0000" + e.step)
      && (!words || e.task.toLowerCase().includes(words)
        || e.turns.some(t => t.observation.toLowerCase().includes(words) || t.action.toLowerCase().includes(words))));
    const key = order.value;
    if (key) {
      const value = x => key === "reward" ? (x.e.reward ?? -Infinity) : x.s[key];
      shown = [...shown].sort((a, b) => value(b) - value(a) || a.i - b.i);
    }
    count.textContent = `${shown.length} of ${all.length} episodes`;
    list.scrollTop = 0;
    if (shown.length) choose(0);
    else { rows(); panel.replaceChildren(empgElement("p", { class: "empty" }, "No episode matches.")); }
  };
  list.addEventListener("scroll", rows, { passive: true });
  list.addEventListener("keydown", event => {
    const move = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: 10, PageUp: -10, Home: -1e9, End: 1e9 }[event.key];
    if (move) { event.preventDefault(); choose(current + move); }
  });
  for (const control of [outcome, kind, from, order]) control.addEventListener("change", apply);
  search.addEventListener("input", apply);
  apply();
}

function empgEpisode(panel, { e, i, s }, all, go) {
  const largest = Math.max(1e-9, ...e.turns.map(t => Math.abs(t.advantage)));
  const siblings = all.filter(x => x.e.group === e.group && x.e.step === e.step && x.e.source === e.source);
  const header = empgElement("header", {},
    empgElement("div", {}, empgElement("strong", { class: e.won ? "won" : "lost" }, e.kind || "episode"),
      ` return ${empgFormat(e.reward)} · ${e.turns.length} steps` + (e.end ? ` · ${e.end}` : "")),
    empgElement("div", { class: "quiet mono" }, e.task),
    siblings.length > 1 ? empgElement("div", { class: "siblings", role: "group", "aria-label": "rollouts of the same task" },
      empgElement("span", { class: "quiet" }, "same task: "),
      ...siblings.map(x => empgElement("button", {
        type: "button", "aria-current": String(x.i === i), onclick: () => go(x.i),
        title: `return ${empgFormat(x.e.reward)}, ${x.e.turns.length} steps, H ${empgFormat(x.s.entropy)}`,
      }, empgElement("span", { class: x.e.won ? "won" : "lost" }, empgFormat(x.e.reward))))) : null);
  const turns = e.turns.map((t, k) => {
    const sign = t.advantage >= 0 ? "good" : "bad";
    const strength = 0.06 + 0.3 * Math.abs(t.advantage) / largest;
    const words = empgElement("span", { class: "words" });
    if (t.tokens && t.tokens.length && t.entropies && t.entropies.length === t.tokens.length) {
      t.tokens.forEach((token, n) => {
        const text = token.replace(/^##/, "").replaceAll("Ġ", " ").replaceAll("Ċ", "\n").replaceAll("▁", " ");
        const space = n > 0 && !token.startsWith("##") && !/^[ĠĊ▁\s]/.test(token) && !t.tokens.some(x => /[Ġ▁]/.test(x));
        const span = empgElement("span", { title: `entropy ${empgFormat(t.entropies[n])} nats` }, text);
        span.style.background = `rgba(var(--shade), ${Math.min(0.75, t.entropies[n] / 3).toFixed(3)})`;
        words.append(space ? " " : "", span);
      });
    } else words.append(t.action || "(nothing)");
    const mark = empgConfidentError(e, t) ? "confident error" : empgUncertainSuccess(e, t) ? "uncertain success" : null;
    const step = empgElement("button", { class: "step", type: "button", "aria-expanded": "false" },
      words,
      empgElement("span", { class: "numbers" },
        `credit ${empgFormat(t.advantage)}`, empgElement("span", {}, `H ${empgFormat(t.h)}`), empgElement("span", {}, `g ${empgFormat(t.g)}`),
        empgElement("span", {}, `bonus ${empgFormat(t.bonus)}`), mark ? empgElement("span", { class: "mark" }, mark) : null));
    step.style.borderLeftColor = `rgba(var(--${sign}), .9)`;
    step.style.background = `rgba(var(--${sign}), ${strength.toFixed(3)})`;
    const turn = empgElement("section", { class: "turn", "aria-label": `step ${k + 1}` },
      empgElement("div", { class: t.observation.length > 600 ? "observation long" : "observation", tabindex: t.observation.length > 600 ? "0" : null }, t.observation), step);
    step.addEventListener("click", () => {
      const open = turn.querySelector(".waterfall");
      step.setAttribute("aria-expanded", String(!open));
      if (open) open.remove(); else turn.append(empgWaterfall(t));
    });
    return turn;
  });
  panel.replaceChildren(header, ...turns);
}

// Base advantage → scaled by g → plus bonus → minus centring → final advantage.
function empgWaterfall(t) {
  const scaled = t.base * t.g;
  const bars = [["base A", 0, t.base], ["× g", t.base, scaled], ["+ ζ·f", scaled, scaled + t.bonus],
    ["− mean", scaled + t.bonus, scaled + t.bonus - t.centring], ["credit", 0, t.advantage]];
  const values = bars.flatMap(b => [b[1], b[2]]).concat(0);
  const low = Math.min(...values), high = Math.max(...values), span = high - low || 1;
  const y = v => 12 + (1 - (v - low) / span) * 110;
  const parts = bars.map(([name, from, to], i) => {
    const x = 14 + i * 108, top = Math.min(y(from), y(to)), height = Math.max(1.5, Math.abs(y(from) - y(to)));
    const colour = to >= from ? "var(--good)" : "var(--bad)";
    const whole = i === 0 || i === 4;
    return `<rect x="${x}" y="${top}" width="84" height="${height}" rx="2" fill="rgba(${colour}, ${whole ? .85 : .5})"/>`
      + `<text x="${x + 42}" y="152" text-anchor="middle">${name}</text>`
      + `<text x="${x + 42}" y="${Math.max(11, top - 3)}" text-anchor="middle">${empgFormat(whole ? to : to - from)}</text>`;
  });
  const box = empgElement("div", { class: "waterfall" });
  box.innerHTML = `<svg viewBox="0 0 560 160" role="img" aria-label="base ${empgFormat(t.base)}, times g ${empgFormat(t.g)}, plus bonus ${empgFormat(t.bonus)}, minus mean ${empgFormat(t.centring)}, credit ${empgFormat(t.advantage)}">`
    + `<line x1="8" x2="552" y1="${y(0)}" y2="${y(0)}" stroke="var(--line)"/>${parts.join("")}</svg>`;
  box.append(empgElement("div", { class: "quiet" },
    `A = ${empgFormat(t.base)} · g = ${empgFormat(t.g)} (H = ${empgFormat(t.h)} nats, normalised ${empgFormat(t.h_norm)}) · `
    + `f of the next step ${t.f_next == null ? "– (last step)" : empgFormat(t.f_next)} · bonus ${empgFormat(t.bonus)} · mean over steps ${empgFormat(t.centring)} · credit ${empgFormat(t.advantage)}`));
  return box;
}
