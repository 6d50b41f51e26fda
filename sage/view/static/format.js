// Numbers and words as people read them.

export const LABELS = ["DET_FAIL", "STRONG", "FALLBACK", "WEAK", "SKIP", "ALWAYS", "NEVER"];
export const LETTER = { DET_FAIL: "D", STRONG: "S", FALLBACK: "F", WEAK: "W", SKIP: "–", ALWAYS: "A", NEVER: "N" };

export function percent(rate) {
  return rate === null || rate === undefined ? "–" : `${(100 * rate).toFixed(1)}`;
}

export function withInterval(rate) {
  if (!rate || rate.rate === null) return "–";
  return `${percent(rate.rate)} [${percent(rate.low)}, ${percent(rate.high)}]`;
}

export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  return size !== 0 && (size < 10 ** -digits || size >= 1e5) ? value.toExponential(2) : value.toFixed(digits);
}

export function whole(value) {
  return value === null || value === undefined ? "–" : Number(value).toLocaleString("en");
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} d`;
}

// What a running attempt does, as its heartbeat says (`now` of status.json).
export function doing(now) {
  return [
    `${now.phase} for ${span(now.seconds)}`,
    now.unit && (now.total ? `${whole(now.done)} of ${whole(now.total)} ${now.unit}` : plural(now.done, now.unit.replace(/s$/, ""))),
    now.turns > 0 && plural(now.turns, "turn"),
    now.tokens_per_second && `${whole(Math.round(now.tokens_per_second))} tokens/s`,
    now.phase_left_s !== null && `${now.at_most ? "at most" : "about"} ${span(now.phase_left_s)} of it left`,
    now.step_left_s !== null && `about ${span(now.step_left_s)} of the step left`,
  ].filter(Boolean).join(" · ");
}

export function bytes(count) {
  return count < 1e6 ? `${Math.ceil(count / 1e3)} kB` : `${(count / 1e6).toFixed(1)} MB`;
}

export function momentTitle(moment) {
  const after = `after ${whole(moment.step)} step${moment.step === 1 ? "" : "s"}`;
  return moment.phase === "eval" ? `evaluation of ${moment.split} ${after}` : `training ${after}`;
}

export function shortTask(task) {
  const parts = String(task).split("/");
  return parts.length > 1 ? parts.slice(1).join("/") : String(task);
}

export function plural(count, word) {
  return `${whole(count)} ${word}${count === 1 ? "" : "s"}`;
}
