// A trajectory, turn by turn.
import { h, link, said, show } from "./dom.js";
import { LETTER, momentTitle, number, shortTask, whole } from "./format.js";
import { here, placeOf, remember, to, toEpisode, toPair } from "./route.js";
import { getEpisode, getEpisodes, getRun, getRuns } from "./source.js";
import { COLOURINGS, scaleBar, scaleOf, tokenLine } from "./tokens.js";

export async function episodePage(main, words) {
  const [key, ...rest] = words;
  const place = placeOf(rest);
  const moment = { phase: place.phase, step: place.step, split: place.split };
  const ask = () => Promise.all([getRun(key), getEpisode(key, place), getEpisodes(key, moment, 0, 1000)]);
  let [[run, found, beside], all] = await Promise.all([ask(), getRuns()]);
  const [head, pager, others_, played, body] = [h("div"), h("span", { class: "tools" }), h("span"), h("div"), h("div")];
  let [at, strip_] = [Number(here().query.get("turn") ?? 0), null];
  const colouring = () => here().query.get("by") ?? "divergence";
  const step = (by) => { const next = beside.rows[indexOf() + by]; if (next) location.hash = toEpisode(key, next, { by: colouring() }); };
  const indexOf = () => beside.rows.findIndex((row) => row.task === place.task && row.rollout === place.rollout);
  const select = h("select", { id: "colour", onchange: () => { remember({ by: select.value }); go(at, false); } },
    Object.entries(COLOURINGS).map(([name, [title]]) => h("option", { value: name }, title)));
  select.value = colouring();
  const othersOf = () => all.runs.filter((one) => one.key !== key && one.seed === run.seed && one.env === run.env);

  function go(n, focus = true) {
    if (n < 0 || n >= found.turns.length) return;
    at = n;
    remember({ turn: at });
    strip_.mark(at, focus);
    show(body, turnView(found.turns[at], found.tokens, colouring()));
  }

  function fillHead() {
    const { episode, turns } = found;
    show(head, h("h1", {}, shortTask(episode.task)),
      h("p", {}, link(to("run", [key], { ...moment }), run.name), `, seed ${run.seed}, ${momentTitle(place)} · `,
        h("span", { class: `state ${episode.won ? "done" : "failed"}` }, episode.status),
        ` · ${whole(turns.length)} turns`, episode.score === null ? null : ` · score ${number(episode.score)}`,
        episode.error && h("span", { class: "reason" }, ` · ${episode.error}`)),
      run.state === "running" && h("p", { class: "quiet", role: "status" },
        `The run goes on: step ${whole(run.step)} of ${whole(run.steps)}, ${run.phase}.`),
      episode.goal && h("p", { class: "goal" }, episode.goal));
    const [index, focused] = [indexOf(), document.activeElement?.id];
    show(pager, h("button", { type: "button", id: "before", disabled: index <= 0, onclick: () => step(-1) }, "← episode"),
      h("span", { class: "quiet" }, ` ${whole(index + 1)} of ${whole(beside.total)} `),
      h("button", { type: "button", id: "after", disabled: index + 1 >= beside.rows.length, onclick: () => step(1) }, "episode →"));
    if (focused === "before" || focused === "after") document.getElementById(focused).focus({ preventScroll: true });
  }

  function fillOthers() {
    const others = othersOf();
    show(others_, others.length > 0 && otherRuns(key, others, place));
  }

  function fillTurns() {
    const { turns, tokens } = found;
    at = Math.min(Math.max(0, at), Math.max(0, turns.length - 1));
    strip_ = strip(turns, (n) => go(n));
    show(played, turns.length === 0 ? h("p", { class: "quiet" }, "No turn was played.") : strip_.element,
      Object.keys(tokens).length > 0
        ? h("p", { class: "tools" }, h("label", { for: "colour" }, "Colour tokens by "), select)
        : h("p", { class: "quiet" }, place.phase === "eval" ? "An evaluation has no teacher: tokens are recorded in training."
          : "The tokens of this episode are not recorded (trainer.log_tokens)."));
    if (turns.length > 0) go(at, false);
  }

  // What was read stays as it is, focus and open menus too, unless the records say otherwise now.
  async function poll() {
    const answer = await getRuns(all.version);
    if (answer.same) return;
    const before = [JSON.stringify(found), othersOf().map((one) => one.key).join()];
    const now = await ask();
    if (!main.isConnected) return;  // another page stands here by now
    all = answer;
    [run, found, beside] = now;
    fillHead();
    if (othersOf().map((one) => one.key).join() !== before[1]) fillOthers();
    if (JSON.stringify(found) !== before[0]) fillTurns();
  }

  show(main, head, h("p", { class: "tools" }, pager, others_), played, body);
  fillHead();
  fillOthers();
  fillTurns();
  return { poll, keys: { ArrowRight: () => go(at + 1), ArrowLeft: () => go(at - 1), l: () => go(at + 1), h: () => go(at - 1),
    Home: () => go(0), End: () => go(found.turns.length - 1), n: () => step(1), p: () => step(-1),
    c: () => { const names = Object.keys(COLOURINGS); select.value = names[(names.indexOf(select.value) + 1) % names.length];
      select.dispatchEvent(new Event("change")); } } };
}

function otherRuns(key, others, place) {
  const select = h("select", { "aria-label": "the same game of another run of this seed",
    onchange: () => { if (select.value) location.hash = toPair(key, select.value, place); } },
    h("option", { value: "" }, "beside another run of this seed …"),
    others.map((one) => h("option", { value: one.key }, `${one.name} (${one.where})`)));
  return select;
}

// One cell a turn: colour and letter by label, height by weight.
export function strip(turns, onPick) {
  const most = Math.max(1e-9, ...turns.map((turn) => turn.effective_weight ?? turn.weight ?? 0));
  const cells = turns.map((turn, n) => {
    const weight = turn.effective_weight ?? turn.weight ?? 0;
    const label = turn.label ?? "none";
    const cell = h("button", { type: "button", class: `cell label-${label}`, title: `turn ${turn.turn}: ${label}`,
      "aria-label": `turn ${turn.turn}, ${label}, ${turn.failure === "none" ? "" : `${turn.failure}, `}${turn.oracle ?? ""} weight ${number(weight)}`,
      tabindex: n === 0 ? "0" : "-1", onclick: () => onPick(n) },
      h("span", { class: "bar", style: { "--height": `${Math.round(100 * weight / most)}%` } }),
      h("span", { class: "letter" }, LETTER[turn.label] ?? "·"),
      h("span", { class: "mark" }, turn.oracle === "harm" ? "▾" : turn.oracle === "progress" ? "▴" : " "));
    return cell;
  });
  const element = h("div", { class: "strip", role: "group", "aria-label": "Turns of the episode" }, cells);
  const present = [...new Set(turns.map((turn) => turn.label).filter(Boolean))];
  return {
    element: h("div", {}, element, h("p", { class: "legend-line quiet" },
      present.map((label) => [h("span", { class: `chip label-${label}` }, `${LETTER[label]} ${label}`), " "]),
      `▴ progress ▾ harm${present.length > 0 ? "; height: weight" : ""}`)),
    mark(n, focus) {
      cells.forEach((cell, i) => { cell.tabIndex = i === n ? 0 : -1; cell.setAttribute("aria-current", i === n ? "true" : "false"); });
      cells[n].scrollIntoView({ block: "nearest", inline: "nearest" });
      if (focus) cells[n].focus({ preventScroll: true });
    },
  };
}

export function turnView(turn, tokens, by, mark = null) {
  const mine = tokens[String(turn.turn)];
  const scale = mine && scaleOf(by, tokens);
  return h("article", { class: "turn", "aria-label": `turn ${turn.turn}` },
    h("h2", {}, `Turn ${turn.turn}`, " ", turn.label && h("span", { class: `chip label-${turn.label}` }, turn.label), " ",
      turn.failure && turn.failure !== "none" && h("span", { class: "chip failure" }, `failure: ${turn.failure}`), " ",
      turn.oracle && h("span", { class: `chip oracle-${turn.oracle}` }, `effect: ${turn.oracle}`), " ",
      turn.truncated && h("span", { class: "chip failure" }, "cut at the token limit")),
    part("Observation", said(turn.observation)),
    mine ? part("Answer, token by token", scaleBar(scale), tokenLine(mine, scale, mark)) : null,
    turn.thought ? part("Thought", said(turn.thought)) : null,
    part("Action", turn.action ? said(turn.action, { class: "said action" }) : h("p", { class: "quiet" }, "None could be read."),
      !mine && (!turn.action || !turn.thought || turn.failure !== "none") && h("details", {}, h("summary", {}, "The raw answer"), said(turn.answer))),
    part("What came of it", said(turn.feedback)),
    numbers(turn),
    turn.judge_question || turn.judge_reply
      ? h("details", { class: "judge", open: true }, h("summary", {}, "The judge", turn.judge_cached ? " (kept reply)" : ""),
        turn.judge_question && part("Question, written again from the config", said(turn.judge_question)),
        part("Raw reply", said(turn.judge_reply ?? "", { class: "said action" })))
      : null,
    turn.admissible ? h("details", {}, h("summary", {}, "Admissible commands"), said(turn.admissible)) : null);
}

function part(title, ...children) {
  return h("section", { class: "part" }, h("h3", {}, title), ...children);
}

function numbers(turn) {
  const rows = [
    ["i_t", turn.weight], ["c_t", turn.confidence], ["Z s_t", turn.effective_weight],
    ["expert's distance", turn.expert_distance_before === null && turn.expert_distance_after === null ? null
      : `${turn.expert_distance_before ?? "–"} → ${turn.expert_distance_after ?? "–"}`],
    ["score", turn.score], ["reward", turn.reward], ["divergence", turn.divergence], ["teacher's top-1", turn.top1],
    ["teacher log q", turn.teacher_logprob], ["student log p", turn.student_logprob], ["tokens", turn.answer_tokens],
    ["propensity", turn.propensity],
  ].filter(([, value]) => value !== null && value !== undefined);
  return h("dl", { class: "numbers" }, rows.map(([name, value]) => h("div", {}, h("dt", {}, name),
    h("dd", {}, typeof value === "number" ? number(value) : value))));
}
