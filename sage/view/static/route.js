// Deep links: where one is stands behind the # of the address, so that a link opens the same place.
//   #/  #/?pick=a,b&q=…   #/run/KEY?filters=a,b   #/episode/KEY/PHASE/STEP/SPLIT/TASK/ROLLOUT?turn=3&by=divergence
//   #/pair/KEY/KEY?phase=…&step=…&split=…         #/pair/KEY/KEY/PHASE/STEP/SPLIT/TASK/ROLLOUT?turn=3

export function here() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const words = path.split("/").filter(Boolean).map(decoded);
  return { name: words[0] ?? "runs", words: words.slice(1), query: new URLSearchParams(query) };
}

function decoded(word) {
  try {
    return decodeURIComponent(word);
  } catch {
    return word;
  }
}

export function to(name, words = [], query = {}) {
  const kept = Object.entries(query).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const tail = new URLSearchParams(kept).toString();
  return `#/${[name, ...words].map(encodeURIComponent).join("/")}${tail ? `?${tail}` : ""}`;
}

// The same place with other words of the query, without a step in the history.
export function remember(changes) {
  const { name, words, query } = here();
  for (const [key, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") query.delete(key);
    else query.set(key, value);
  }
  history.replaceState(null, "", to(name, words, Object.fromEntries(query)));
}

export function toEpisode(key, place, query = {}) {
  return to("episode", [key, ...placeWords(place)], query);
}

export function toPair(a, b, place, query = {}) {
  return to("pair", [a, b, ...(place ? placeWords(place) : [])], query);
}

function placeWords(place) {
  return [place.phase, place.step, place.split, place.task, place.rollout].map(String);
}

export function placeOf(words) {
  const [phase, step, split, task, rollout] = words;
  return { phase, step: Number(step), split, task, rollout: Number(rollout) };
}
