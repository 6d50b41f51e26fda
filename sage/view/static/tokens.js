// The tokens of one answer, coloured by what is known of each.
import { h, visible } from "./dom.js";
import { number, percent } from "./format.js";

const minus = (value) => (value === null || value === undefined ? null : -value);
export const COLOURINGS = {
  divergence: ["divergence, nats", (t, i) => at(t.divergence, i)],
  gap: ["teacher less student log-probability, nats", (t, i) => gap(t, i), "both"],
  teacher: ["teacher's surprise −log q, nats", (t, i) => minus(at(t.teacher_logprob, i))],
  student: ["student's surprise −log p, nats", (t, i) => minus(at(t.student_logprob, i))],
  top1: ["teacher's top-1 probability", (t, i) => at(t.top1, i), "share"],
  teacher_entropy: ["teacher's entropy, nats", (t, i) => at(t.teacher_entropy, i)],
  student_entropy: ["student's entropy, nats", (t, i) => at(t.student_entropy, i)],
  confidence: ["confidence c", (t, i) => at(t.confidence, i), "share"],
  weight: ["weight Z s", (t, i) => at(t.weight, i)],
};

function at(column, i) {
  return column ? column[i] ?? null : null;
}

function gap(tokens, i) {
  const [teacher, student] = [at(tokens.teacher_logprob, i), at(tokens.student_logprob, i)];
  return teacher === null || student === null ? null : teacher - student;
}

// Cividis (Nuñez, Anderton, Renslow 2018), made for colour-blind readers; and blue against orange for signs.
const CIVIDIS = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 182, 103], [254, 232, 56]];
const SIGNS = [[0, 90, 160], [120, 170, 215], [240, 240, 240], [245, 180, 110], [200, 85, 0]];

function mixed(stops, share) {
  const place = Math.min(1, Math.max(0, share)) * (stops.length - 1);
  const low = Math.min(stops.length - 2, Math.floor(place));
  return stops[low].map((one, i) => Math.round(one + (stops[low + 1][i] - one) * (place - low)));
}

// Black or white, whichever is told better from the fill (WCAG 2.1's luminance: at least 4.5 to 1).
function paint(element, colour) {
  const light = colour.map((part) => part / 255).map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, i) => sum + part * [0.2126, 0.7152, 0.0722][i], 0);
  element.style.setProperty("--fill", `rgb(${colour.join(" ")})`);
  element.style.setProperty("--on", light > 0.179 ? "#000" : "#fff");
}

// The scale of one colouring over all tokens of an episode.
export function scaleOf(by, turns) {
  const [title, read, kind] = COLOURINGS[by] ?? COLOURINGS.divergence;
  const values = Object.values(turns).flatMap((t) => t.token.map((_, i) => read(t, i))).filter((v) => v !== null);
  const sizes = values.map(Math.abs).sort((a, b) => a - b);
  const top = kind === "share" ? 1 : sizes[Math.min(sizes.length - 1, Math.floor(0.99 * sizes.length))] || 1;
  return { title, read, kind, top, known: values.length };
}

// Nats have a long tail: their colours go by the square root, and the bar says which value has which.
function colourOf(scale, value) {
  const share = Math.min(1, Math.abs(value) / scale.top);
  if (scale.kind === "share") return mixed(CIVIDIS, share);
  return scale.kind === "both" ? mixed(SIGNS, (Math.sign(value) * Math.sqrt(share) + 1) / 2) : mixed(CIVIDIS, Math.sqrt(share));
}

function valueAt(scale, share) {
  if (scale.kind === "share") return share * scale.top;
  const place = scale.kind === "both" ? 2 * share - 1 : share;
  return Math.sign(place) * place * place * scale.top;
}

export function scaleBar(scale) {
  const cells = [0, 0.25, 0.5, 0.75, 1].map((share) => {
    const value = valueAt(scale, share);
    const cell = h("span", { class: "cell" }, number(value, 2) + (share === 1 && scale.kind !== "share" ? "+" : ""));
    paint(cell, colourOf(scale, value));
    return cell;
  });
  return h("p", { class: "scale" }, h("span", {}, scale.title), cells,
    h("span", { class: "cell unknown" }, "not known"));
}

// tokens: the columns of one answer; mark: the position that is framed, as the first that differs.
export function tokenLine(tokens, scale, mark = null) {
  const tip = h("div", { class: "tip", role: "tooltip", id: `tip-${tokenLine.made = (tokenLine.made ?? 0) + 1}`, hidden: true });
  const line = h("div", { class: "tokens" });
  const open = (element, i) => {
    tip.replaceChildren(...tipOf(tokens, i));
    tip.hidden = false;
    const room = line.clientWidth - tip.offsetWidth;
    tip.style.setProperty("left", `${Math.max(0, Math.min(element.offsetLeft, room))}px`);
    tip.style.setProperty("top", `${element.offsetTop + element.offsetHeight + 4}px`);
  };
  const close = () => { tip.hidden = true; };
  tokens.token.forEach((_, i) => {
    const value = scale.read(tokens, i);
    const text = tokens.text[i] ?? "";
    const shown = text === "" ? "·" : visible(text).replace(/\n/g, "↵");
    const element = h("span", { class: `token${mark === i ? " differs" : ""}${value === null ? " unknown" : ""}`, tabindex: "0",
      "data-at": i, "aria-describedby": tip.id, "aria-label": `${shown.trim() || "blank"}, ${scale.title} ${number(value)}`,
      onmouseenter: () => open(element, i), onfocus: () => open(element, i), onmouseleave: close, onblur: close,
      onkeydown: (event) => { if (event.key === "Escape") close(); } }, shown);
    if (value !== null) paint(element, colourOf(scale, value));
    line.append(element);
    if (text.includes("\n")) line.append(h("br"));
  });
  line.append(tip);
  return line;
}

function tipOf(tokens, i) {
  const words = [1, 2, 3].map((rank) => [at(tokens[`word_${rank}`], i), at(tokens[`word_${rank}_p`], i)])
    .filter(([word]) => word !== null);
  const rows = [
    ["student log p", at(tokens.student_logprob, i)], ["teacher log q", at(tokens.teacher_logprob, i)],
    ["divergence", at(tokens.divergence, i)], ["teacher's top-1", at(tokens.top1, i)],
    ["entropy student", at(tokens.student_entropy, i)], ["entropy teacher", at(tokens.teacher_entropy, i)],
    ["confidence c", at(tokens.confidence, i)], ["weight Z s", at(tokens.weight, i)],
  ];
  return [
    h("strong", {}, JSON.stringify(tokens.text[i] ?? "")), ` token ${tokens.token[i]}, place ${i}`,
    h("p", {}, words.length === 0 ? "The teacher's words are not known." : "The teacher would say"),
    h("ol", {}, words.map(([word, p]) => h("li", {}, h("code", {}, JSON.stringify(word)), ` ${percent(p)} %`))),
    h("dl", {}, rows.map(([name, value]) => [h("dt", {}, name), h("dd", {}, number(value, 4))])),
  ];
}
