"use strict";
// Curves of arms and runs, drawn by uPlot.
const EMPG_COLOURS = ["#0b72b2", "#d55e00", "#009e73", "#b65fa8", "#c79a00", "#56a4d9", "#7a5230", "#666f78"];

function empgColour(i) { return EMPG_COLOURS[i % EMPG_COLOURS.length]; }

function empgFormat(v) {
  if (v == null || !Number.isFinite(v)) return "–";
  const a = Math.abs(v);
  if (a !== 0 && (a < 1e-3 || a >= 1e6)) return v.toExponential(2);
  if (a >= 1000) return Math.round(v).toLocaleString("en");
  return String(+v.toPrecision(4));
}

// One chart: `bands` are [{arm, label, colour, x, mean, low, high}], `lines` [{arm, colour, x, y}];
// arms in the set `hidden` are not drawn.
function empgChart(host, title, allBands, allLines, hidden = new Set()) {
  const frame = document.createElement("section");
  frame.className = "chart";
  frame.innerHTML = '<header><span></span><button type="button" aria-pressed="false">log</button></header><div class="plot"></div><div class="values" aria-live="off"></div>';
  frame.querySelector("span").textContent = title;
  const button = frame.querySelector("button");
  const values = frame.querySelector(".values");
  host.append(frame);
  let bands = allBands, xs = [], at = new Map();
  // A line goes on over steps that it has no place for (undefined), and breaks where its value is
  // missing (null): from the value before to the one behind.
  const spread = (x, y, legal) => {
    const out = new Array(xs.length).fill(undefined);
    x.forEach((v, i) => { out[at.get(v)] = legal(y[i]); });
    for (let i = 1; i < out.length; i++) if (out[i] === undefined && out[i - 1] === null) out[i] = null;
    for (let i = out.length - 2; i >= 0; i--) if (out[i] === undefined && out[i + 1] === null) out[i] = null;
    return out;
  };
  // A value without neighbours is no line: it is a point.
  const points = colour => ({
    show: false, size: 5, fill: colour,
    filter: (u, s) => {
      const y = u.data[s], there = y.flatMap((v, i) => v === undefined ? [] : [i]);
      const gap = k => y[there[k]] == null;
      const alone = there.filter((_, k) => !gap(k) && gap(k - 1) && gap(k + 1));
      return alone.length ? alone : null;
    },
  });
  let plot = null;
  let log = false;
  const draw = () => {
    // Who has zoomed in stays there.
    const zoomed = plot && xs.length && (plot.scales.x.min > xs[0] || plot.scales.x.max < xs.at(-1));
    const range = zoomed && { min: plot.scales.x.min, max: plot.scales.x.max };
    if (plot) plot.destroy();
    const shown = s => !hidden.has(s.arm);
    bands = allBands.filter(shown);
    const lines = allLines.filter(shown);
    xs = [...new Set([...bands, ...lines].flatMap(s => s.x))].sort((a, b) => a - b);
    at = new Map(xs.map((x, i) => [x, i]));
    values.textContent = "";
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--quiet").trim(), grid = style.getPropertyValue("--line").trim();
    const legal = v => (v == null || (log && v <= 0)) ? null : v;
    const curve = (x, y, look) => {
      series.push({ points: { show: false }, spanGaps: false, ...look });
      data.push(spread(x, y, legal));
    };
    const series = [{}], data = [xs], fills = [];
    for (const line of lines) {
      const stroke = line.colour + "88";
      curve(line.x, line.y, { stroke, width: 1, points: points(stroke), dash: line.dash });
    }
    for (const band of bands) {
      if (band.low && band.low.length) {
        const hi = series.length;
        for (const edge of [band.high, band.low]) curve(band.x, edge, { stroke: "transparent", width: 0 });
        fills.push({ series: [hi, hi + 1], fill: band.colour + "2e" });
      }
      curve(band.x, band.mean, { stroke: band.colour, width: 2, points: points(band.colour) });
    }
    const axis = { stroke: ink, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 }, font: "11px system-ui" };
    plot = new uPlot({
      width: Math.max(220, frame.clientWidth - 22), height: 190, series, bands: fills,
      legend: { show: false },
      cursor: { drag: { x: true, y: false }, points: { show: false }, sync: { key: "empg" } },
      scales: { x: { time: false }, y: log ? { distr: 3 } : {} },
      axes: [{ ...axis, size: 28 }, { ...axis, size: 52, values: (_, ticks) => ticks.map(t => t == null ? "" : empgFormat(t)) }],
      hooks: {
        setCursor: [u => {
          const i = u.cursor.idx;
          if (i == null) { values.textContent = ""; return; }
          const parts = bands.map(b => {
            // Of a long curve not every step is drawn: the last one that is, with its own step.
            const k = b.x.findLastIndex(x => x <= xs[i]);
            if (k < 0 || xs[i] > b.x.at(-1) || b.mean[k] == null) return null;
            const range = b.low && b.low.length && b.low[k] != null ? ` [${empgFormat(b.low[k])}, ${empgFormat(b.high[k])}]` : "";
            return (bands.length > 1 ? b.label + " " : "") + empgFormat(b.mean[k]) + range + (b.x[k] === xs[i] ? "" : ` (at ${b.x[k]})`);
          }).filter(Boolean);
          values.textContent = `step ${xs[i]}: ` + parts.join(" · ");
        }],
      },
    }, data, frame.querySelector(".plot"));
    if (range) plot.setScale("x", range);
  };
  button.addEventListener("click", () => {
    log = !log;
    button.setAttribute("aria-pressed", String(log));
    draw();
  });
  draw();
  return {
    draw,
    has: arm => allBands.some(b => b.arm === arm),
    update: (newBands, newLines) => { [allBands, allLines] = [newBands, newLines]; draw(); },
  };
}
