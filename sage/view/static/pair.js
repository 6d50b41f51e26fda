// Two runs of one seed: games that only one of them won, and the first turn and token at which they part.
import { h, link, note, show, table } from "./dom.js";
import { momentTitle, percent, plural, shortTask, whole } from "./format.js";
import { here, placeOf, remember, to, toEpisode, toPair } from "./route.js";
import { nameOf } from "./runs.js";
import { getEpisode, getEpisodes, getRun } from "./source.js";
import { COLOURINGS } from "./tokens.js";
import { strip, turnView } from "./episode.js";

const KINDS = { one: "won by one only", a: "only the first", b: "only the second", both: "won by both", none: "won by none", all: "all" };

export async function pairPage(main, words) {
  const [a, b, ...rest] = words;
  const runs = await Promise.all([getRun(a), getRun(b)]);
  return rest.length > 0 ? pairEpisode(main, runs, placeOf(rest)) : pairGames(main, runs);
}

function momentsOfBoth([a, b]) {
  const same = (x, y) => x.phase === y.phase && x.step === y.step && x.split === y.split;
  return a.moments.filter((one) => b.moments.some((other) => same(one, other)));
}

// The two columns' heads, and what has to be said before they are compared.
function heading(runs) {
  const [a, b] = runs;
  const sentences = [];
  if (a.seed !== b.seed) sentences.push(`Their seeds differ (${a.seed}, ${b.seed}): games and random numbers are not the same.`);
  if (a.env !== b.env) sentences.push(`They play other games (${a.env}, ${b.env}).`);
  return [h("h1", {}, link(to("run", [a.key]), nameOf(a)), h("span", { class: "quiet" }, " beside "), link(to("run", [b.key]), nameOf(b))),
    note(sentences)];
}

function kindOf([a, b]) {
  if (a.won && b.won) return "both";
  return a.won ? "a" : b.won ? "b" : "none";
}

async function pairGames(main, runs) {
  const [a, b] = runs;
  const moments = momentsOfBoth(runs);
  const select = h("select", { id: "moment" }, moments.map((one, i) => h("option", { value: i }, momentTitle(one))));
  const kinds = h("select", { id: "kind" }, Object.entries(KINDS).map(([name, title]) => h("option", { value: name }, title)));
  const list = h("div", {});
  show(main, heading(runs), h("p", { class: "tools" }, h("label", { for: "moment" }, "Games of "), select,
    h("label", { for: "kind" }, " that were "), kinds), list);
  if (moments.length === 0) {
    show(list, h("p", { class: "quiet" }, "The two have no evaluation and no training step in common."));
    return;
  }
  const asked = here().query;
  const first = moments.findIndex((one) => one.phase === asked.get("phase") && String(one.step) === asked.get("step") && one.split === asked.get("split"));
  const lastEvaluation = moments.findLastIndex((one) => one.phase === "eval");
  select.value = String(first >= 0 ? first : Math.max(0, lastEvaluation));
  kinds.value = asked.get("kind") ?? "one";

  async function fill() {
    const moment = moments[Number(select.value)];
    const where = { phase: moment.phase, step: moment.step, split: moment.split };
    remember({ ...where, kind: kinds.value });
    const [left, right] = await Promise.all([a, b].map((run) => getEpisodes(run.key, where, 0, 5000)));
    const other = new Map(right.rows.map((row) => [`${row.rollout} ${row.task}`, row]));
    const games = left.rows.map((row) => [row, other.get(`${row.rollout} ${row.task}`)]).filter(([, two]) => two);
    const usable = games.filter(([x, y]) => x.ok && y.ok);
    const counts = Object.fromEntries(["a", "b", "both", "none"].map((kind) => [kind, usable.filter((game) => kindOf(game) === kind).length]));
    const wanted = usable.filter((game) => kinds.value === "all" || kinds.value === kindOf(game) || (kinds.value === "one" && "ab".includes(kindOf(game))));
    const missing = left.total + right.total - 2 * games.length;
    const beyond = left.total > left.rows.length || right.total > right.rows.length;
    show(list,
      h("p", { role: "status" }, `${plural(usable.length, "game")} of both: ${whole(counts.a)} won by ${a.name} only, ${whole(counts.b)} by ${b.name} only, `
        + `${whole(counts.both)} by both, ${whole(counts.none)} by none`
        + (usable.length ? `; ${a.name} less ${b.name}: ${percent((counts.a - counts.b) / usable.length).replace("-", "−")} points.` : ".")
        + (missing ? ` ${plural(missing, "episode")} of one have no partner.` : "")
        + (games.length > usable.length ? ` ${plural(games.length - usable.length, "game")} not ok in one of them are left out.` : "")
        + (beyond ? " Only the first 5,000 games are compared here." : "")),
      table(["game", a.name, b.name, "kind"], wanted.map(([x, y]) => h("tr", {},
        h("td", {}, link(toPair(a.key, b.key, x), shortTask(x.task)), x.goal && h("div", { class: "quiet" }, x.goal)),
        [x, y].map((row) => h("td", {}, h("span", { class: `state ${row.won ? "done" : "failed"}` }, row.status), h("span", { class: "quiet" }, ` ${whole(row.turns)} turns`))),
        h("td", {}, x.task_type)))));
  }
  select.onchange = fill;
  kinds.onchange = fill;
  await fill();
}

// Where two trajectories part: {turn, token, what}, turn null where they never do.
export function parting(a, b) {
  const turns = Math.max(a.turns.length, b.turns.length);
  for (let n = 0; n < turns; n += 1) {
    const [x, y] = [a.turns[n], b.turns[n]];
    if (!x || !y) return { turn: n, token: null, what: "One ends here." };
    if (x.observation !== y.observation) return { turn: n, token: null, what: "They see different things before they answer." };
    const [s, t] = [a.tokens[String(x.turn)], b.tokens[String(y.turn)]];
    const token = firstOther(idsOf(x, s), idsOf(y, t));
    if (s && t) {
      if (token !== null) return { turn: n, token, exact: true, what: `The token at place ${token} is ${quoted(s.text[token])} in one and ${quoted(t.text[token])} in the other.` };
    } else if (token !== null || x.answer !== y.answer) {
      return { turn: n, exact: false, ...byWords(x, y, token) };
    }
    if (x.feedback !== y.feedback) return { turn: n, token: null, what: "They say the same, and the environment answers otherwise." };
  }
  return { turn: null, token: null, what: "They are the same to the last token." };
}

function idsOf(turn, tokens) {
  return tokens ? tokens.token : turn.answer_ids ? turn.answer_ids.split(" ").map(Number) : null;
}

// Where ids are recorded and the tokens' texts are not, the place is that of the token and the text that of the word.
function byWords(x, y, token) {
  const [u, v] = [pieces(x.answer), pieces(y.answer)];
  const word = firstOther(u, v);
  const texts = word === null ? "the same text in other tokens" : `${quoted(u[word])} in one and ${quoted(v[word])} in the other`;
  if (token === null) return { token: word, what: `The word at place ${word} is ${texts} (records without token ids).` };
  const [i, j] = [idsOf(x), idsOf(y)].map((ids) => ids[token] ?? "the end");
  return { token: word ?? -1, what: `The token at place ${token} is another (${i}, ${j}): ${texts}.` };
}

function firstOther(a, b) {
  if (a === null || b === null) return null;
  for (let i = 0; i < Math.max(a.length, b.length); i += 1) if (a[i] !== b[i]) return i;
  return null;
}

function quoted(text) {
  return text === undefined ? "the end" : JSON.stringify(text);
}

export function pieces(text) {
  return text.match(/\s*[^\s]+|\s+$/gu) ?? [];
}

function answerWords(turn, mark) {
  return h("p", { class: "said" }, pieces(turn.answer).map((word, i) => (i === mark ? h("mark", {}, word) : word)));
}

async function pairEpisode(main, runs, place) {
  const [a, b] = runs;
  const both = await Promise.all(runs.map((run) => getEpisode(run.key, place).catch((error) => ({ error: error.message }))));
  const moment = { phase: place.phase, step: place.step, split: place.split };
  const lost = both.map((one, i) => one.error && `${nameOf(runs[i])}: ${one.error}`).filter(Boolean);
  if (lost.length > 0) {
    show(main, heading(runs), note(lost));
    return null;
  }
  const part = parting(...both);
  const rows = Math.max(...both.map((one) => one.turns.length));
  let at = Math.min(Number(here().query.get("turn") ?? part.turn ?? 0), Math.max(0, rows - 1));
  const body = h("div", { class: "pair" });
  const strips = both.map((one, i) => (one.turns.length > 0 ? strip(one.turns, (n) => go(n, i)) : null));
  const select = h("select", { id: "colour", onchange: () => { remember({ by: select.value }); go(at); } },
    Object.entries(COLOURINGS).map(([name, [title]]) => h("option", { value: name }, title)));
  select.value = here().query.get("by") ?? "divergence";

  function go(n, focus = null) {
    if (n < 0 || n >= rows) return;
    at = n;
    remember({ turn: at });
    strips.forEach((one, i) => { if (one && both[i].turns[at]) one.mark(at, focus === i); });
    show(body, both.map((one, i) => side(one, runs[i])));
  }

  function side(one, run) {
    const turn = one.turns[at];
    const differs = part.turn === at && part.token !== null;
    return h("section", { "aria-label": nameOf(run) }, h("p", { class: "side-name" }, link(toEpisode(run.key, place, { turn: at }), nameOf(run))),
      !turn ? h("p", { class: "quiet" }, `It had ended (${one.episode.status}).`)
        : [differs && !part.exact && h("section", { class: "part" }, h("h3", {}, "Answer"), answerWords(turn, part.token)),
          turnView(turn, one.tokens, select.value, differs && part.exact ? part.token : null)]);
  }

  show(main, heading(runs),
    h("p", {}, shortTask(place.task), " · ", link(toPair(a.key, b.key, null, moment), momentTitle(place))),
    both[0].episode.goal && h("p", { class: "goal" }, both[0].episode.goal),
    h("p", { class: "parting", role: "status" }, part.turn === null ? part.what
      : [h("button", { type: "button", onclick: () => go(part.turn) }, `They part at turn ${part.turn}`), ` ${part.what}`]),
    h("div", { class: "pair" }, both.map((one, i) => h("section", {}, h("p", { class: "side-name" }, nameOf(runs[i]), " ",
      h("span", { class: `state ${one.episode.won ? "done" : "failed"}` }, one.episode.status), ` ${whole(one.turns.length)} turns`), strips[i]?.element))),
    h("p", { class: "tools" }, h("button", { type: "button", onclick: () => go(at - 1) }, "← turn"),
      h("button", { type: "button", onclick: () => go(at + 1) }, "turn →"),
      both.some((one) => Object.keys(one.tokens).length > 0) && [h("label", { for: "colour" }, " Colour tokens by "), select]),
    body);
  if (rows > 0) go(at);
  return { keys: { ArrowRight: () => go(at + 1), ArrowLeft: () => go(at - 1), l: () => go(at + 1), h: () => go(at - 1),
    Home: () => go(0), End: () => go(rows - 1), d: () => go(part.turn ?? 0) } };
}
