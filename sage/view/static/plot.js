// Curves, drawn by uPlot. Colours and dashes together, so that no line is told by its colour alone.
import { h } from "./dom.js";
import { number } from "./format.js";

// Okabe and Ito's colours, which colour-blind readers tell apart, in an order that keeps neighbours far apart.
export const LINES = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f"];
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];

// A series may name a colour of the style sheet, as --strong.
function lineStyle({ index, colour }) {
  return { colour: colour ? ink(colour) : LINES[index % LINES.length], dash: DASHES[Math.floor(index / LINES.length + index) % DASHES.length] };
}

function ink(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

// series: [{label, xs, ys, index, marks}]; every series has x of its own, which are put on one axis here.
export function plot(title, series, options = {}) {
  const shown = series.filter((one) => one.ys.some((y) => y !== null && y !== undefined));
  const figure = h("figure", { class: "plot" }, h("figcaption", {}, title));
  if (shown.length === 0) {
    figure.append(h("p", { class: "quiet" }, "Nothing recorded yet."));
    return figure;
  }
  const axis = [...new Set(shown.flatMap((one) => one.xs))].sort((a, b) => a - b);
  const columns = shown.map((one) => {
    const at = new Map(one.xs.map((x, i) => [x, one.ys[i] ?? null]));
    return axis.map((x) => at.get(x) ?? null);
  });
  const room = h("div", { class: "canvas", role: "img", "aria-label": spoken(title, shown) });
  figure.append(room, legend(shown));
  const draw = () => {
    const width = Math.max(240, room.clientWidth || 320);
    room.replaceChildren();
    const lines = { stroke: ink("--ink"), grid: { stroke: ink("--line"), width: 1 }, ticks: { stroke: ink("--line") },
      font: "12px system-ui, sans-serif" };
    new uPlot({
      width, height: options.height ?? 190, legend: { show: false }, cursor: { y: false },
      scales: { x: { time: false, range: (_, low, high) => (low === high ? [low - 1, high + 1] : [low, high]) },
        y: { range: (_, low, high) => rangeOf(low, high, options) } },
      axes: [{ ...lines, size: 30, values: (_, ticks) => ticks.map((t) => (Number.isInteger(t) ? t : "")) },
        { ...lines, size: 56 }],
      series: [{}, ...shown.map((one) => ({
        label: one.label, stroke: lineStyle(one).colour, dash: lineStyle(one).dash, width: 2,
        spanGaps: true, points: { show: one.ys.length < 40, size: 6, fill: lineStyle(one).colour },
      }))],
    }, [axis, ...columns], room);
  };
  new ResizeObserver(() => { if (room.isConnected && room.clientWidth !== room.dataset.drawn) { room.dataset.drawn = room.clientWidth; draw(); } }).observe(room);
  return figure;
}

function rangeOf(low, high, options) {
  if (options.share) return [0, Math.max(1, high ?? 1)];
  if (low === null || low === undefined) return [0, 1];
  const bottom = low >= 0 ? 0 : low;
  return bottom === high ? [bottom - 1, high + 1] : [bottom, high + 0.05 * (high - bottom)];
}

function legend(shown) {
  return h("ul", { class: "legend" }, shown.map((one) => {
    const { colour, dash } = lineStyle(one);
    const last = one.ys.findLast((y) => y !== null && y !== undefined);
    return h("li", {},
      svgLine(colour, dash), ` ${one.label} `, h("span", { class: "quiet" }, number(last)));
  }));
}

function svgLine(colour, dash) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("width", "28");
  svg.setAttribute("height", "8");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(space, "line");
  for (const [name, value] of Object.entries({ x1: 0, x2: 28, y1: 4, y2: 4, stroke: colour, "stroke-width": 2.5,
    "stroke-dasharray": dash.join(" ") })) line.setAttribute(name, value);
  svg.append(line);
  return svg;
}

function spoken(title, shown) {
  return `${title}: ${shown.map((one) => {
    const known = one.ys.filter((y) => y !== null && y !== undefined);
    return `${one.label} from ${number(known[0])} to ${number(known.at(-1))}`;
  }).join("; ")}`;
}
