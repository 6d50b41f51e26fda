// Where records come from: the server that sent this page, or the page itself. Both answer the same questions.

const inside = document.getElementById("records");
export const FILE = inside ? JSON.parse(inside.textContent) : null;
export const isFile = FILE !== null;
const KEPT = "sage-view-token";

// The address that the terminal shows ends with #/open/TOKEN; what stands behind # is sent to nobody.
function token() {
  const given = /^#\/open\/([\w-]+)(\/.*)?$/.exec(location.hash);
  if (given) {
    localStorage.setItem(KEPT, given[1]);
    history.replaceState(null, "", `#${given[2] ?? "/"}`);
  }
  return given?.[1] ?? localStorage.getItem(KEPT) ?? "";
}

const held = isFile ? "" : token();

async function ask(question, query) {
  const words = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== null && value !== undefined));
  let answer;
  try {
    answer = await fetch(`api/${question}?${words}`, { headers: { "x-sage-token": held } });
  } catch {
    throw new Error("The viewer does not answer: is `python -m sage view` still running?");
  }
  const data = await answer.json().catch(() => ({ error: `The viewer answered ${answer.status}.` }));
  if (!answer.ok) throw new Error(data.error ?? `That cannot be asked (${answer.status}).`);
  return data;
}

export function placeKey(place) {
  return JSON.stringify([place.phase, place.step, place.split, place.task, place.rollout]);
}

function passes(row, where) {
  return Object.entries(where).every(([name, value]) => value === null || value === undefined
    || (Array.isArray(value) ? value.includes(row[name] ?? null) : (row[name] ?? null) === value));
}

function held_in(part, key) {
  const found = FILE[part][key];
  if (!found) throw new Error("That is not in this page.");
  return found;
}

export async function getRuns(since = null) {
  return isFile ? FILE.runs : ask("runs", { since });
}

export async function getRun(key) {
  return isFile ? held_in("run", key) : ask("run", { key });
}

export async function getEpisodes(key, where, offset = 0, limit = 200) {
  if (!isFile) return ask("episodes", { key, ...where, offset, limit });
  const rows = held_in("episodes", key).filter((row) => passes(row, where));
  return { total: rows.length, offset, rows: rows.slice(offset, offset + limit) };
}

export async function getEpisode(key, place) {
  if (isFile) return held_in("episode", key)[placeKey(place)] ?? held_in("episode", "");
  const { phase, step, split, task, rollout } = place;
  return ask("episode", { key, phase, step, split, task, rollout });
}

export async function getTurns(key, filters, offset = 0, limit = 200) {
  if (!isFile) return ask("turns", { key, filters: filters.map((one) => one.name).join(","), offset, limit });
  const rows = [];
  for (const episode of held_in("episodes", key)) {
    const found = FILE.episode[key][placeKey(episode)];
    for (const turn of found.turns) {
      const row = { ...episode, ...turn };
      if (filters.every((one) => passes(row, one.where))) rows.push(row);
    }
  }
  return { total: rows.length, offset, rows: rows.slice(offset, offset + limit) };
}
