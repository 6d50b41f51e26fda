// One run: its curves, when it was played, its episodes, and the turns that filters find.
import { h, lastOf, link, note, show, table } from "./dom.js";
import { bytes, doing, momentTitle, number, plural, shortTask, span, whole } from "./format.js";
import { here, remember, to, toEpisode, toPair } from "./route.js";
import { curves, gamesOf } from "./runs.js";
import { getEpisodes, getRun, getRuns, getTurns } from "./source.js";

const ROWS = 100;

export async function runPage(main, words, filters) {
  const [key] = words;
  let [run, all] = await Promise.all([getRun(key), getRuns()]);
  const head = h("div", {});
  const plots = h("div", { class: "plots" });
  const moments = h("select", { id: "moment", onchange: () => { choose(moments.value); } });
  const episodes = h("div", {});
  const turns = h("div", {});
  const [lastEpisodes, lastTurns] = [lastOf(), lastOf()];
  show(main, head, h("details", { open: true }, h("summary", {}, "Curves"), plots),
    h("h2", {}, "Episodes"), h("p", { class: "tools" }, h("label", { for: "moment" }, "Played in "), moments), episodes,
    h("h2", {}, "Turns"), chips(filters, () => fillTurns(0)), turns,
    h("details", {}, h("summary", {}, "Settings that can change a result"), settings(run)));

  function fillHead() {
    const others = all.runs.filter((one) => one.key !== key && one.seed === run.seed && one.env === run.env);
    show(head, h("h1", {}, run.name), note(run.notes),
      h("p", {}, h("span", { class: `state ${run.state}` }, run.state), run.reason && ` ${run.reason}`,
        ` · ${gamesOf(run)} · seed ${run.seed} · step ${whole(run.step)} of ${whole(run.steps)}`,
        run.state === "running" && run.left_s !== null && ` · about ${span(run.left_s)} of training left`),
      run.now && h("p", { id: "now", class: "quiet" }, run.now.step > 0 && `making step ${whole(run.now.step)}: `, doing(run.now)),
      h("p", { class: "quiet" }, `${run.where} · ${plural(run.turns.rows, "turn")} · `,
        run.tokens.rows > 0 ? `${plural(run.tokens.rows, "token")} recorded one by one (${bytes(run.tokens.bytes)})`
          : "no tokens recorded one by one"),
      others.length > 0 && h("p", {}, "Beside a run of the same seed: ",
        others.slice(0, 12).map((one) => [link(toPair(key, one.key), one.name), " "])));
    show(plots, curves([run]));
    const chosen = moments.value;
    show(moments, run.moments.map((one, i) => h("option", { value: i }, `${momentTitle(one)}: ${one.won} of ${one.n} won`)));
    if (chosen !== "") moments.value = chosen;
  }

  function choose(i) {
    const moment = run.moments[i];
    if (!moment) return;
    remember({ phase: moment.phase, step: moment.step, split: moment.split });
    fillEpisodes(0);
  }

  async function fillEpisodes(offset) {
    const moment = run.moments[Number(moments.value)];
    if (!moment) { show(episodes, h("p", { class: "quiet" }, "Nothing was played yet.")); return; }
    const where = { phase: moment.phase, step: moment.step, split: moment.split };
    const found = await lastEpisodes(getEpisodes(key, where, offset, ROWS));
    if (!found) return;
    show(episodes, table(["game", "kind", "end", "score", "turns", "tokens"], found.rows.map((row) => h("tr", {},
      h("td", {}, link(toEpisode(key, row), shortTask(row.task)), row.goal && h("div", { class: "quiet" }, row.goal)),
      h("td", {}, row.task_type), h("td", {}, h("span", { class: `state ${row.won ? "done" : "failed"}` }, row.status)),
      h("td", {}, number(row.score, 2)), h("td", {}, whole(row.turns)), h("td", {}, row.has_tokens ? "recorded" : "")))),
      pager(found, ROWS, fillEpisodes));
  }

  async function fillTurns(offset) {
    const chosen = chosenFilters(filters);
    const found = await lastTurns(chosen.length > 0 && getTurns(key, chosen, offset, ROWS));
    if (found === null) return;
    if (!found) {
      show(turns, h("p", { class: "quiet" }, "Choose what to look for; turns that fit all of it are listed."));
      return;
    }
    show(turns, h("p", { role: "status" }, `${plural(found.total, "turn")}`),
      table(["turn", "label", "effect", "action", "what came of it", "Z s_t", "when"], found.rows.map((row) => h("tr", {},
        h("td", {}, link(toEpisode(key, row, { turn: row.turn }), `${row.turn} of ${shortTask(row.task)}`)),
        h("td", {}, row.label && h("span", { class: `chip label-${row.label}` }, row.label)), h("td", {}, row.oracle ?? ""),
        h("td", { class: "words" }, row.action ?? ""), h("td", { class: "words" }, row.feedback ?? ""),
        h("td", {}, number(row.effective_weight)), h("td", { class: "quiet" }, momentTitle(row))))),
      pager(found, ROWS, fillTurns));
  }

  fillHead();
  const asked = here().query;
  const first = run.moments.findIndex((one) => one.phase === asked.get("phase") && String(one.step) === asked.get("step")
    && one.split === asked.get("split"));
  moments.value = String(first >= 0 ? first : Math.max(0, run.moments.length - 1));
  await fillEpisodes(0);
  await fillTurns(0);
  if (run.state !== "running") return null;
  let seen = all.version;
  return { poll: async () => {
    const answer = await getRuns(seen);
    if (answer.same) return;
    seen = answer.version;
    run = await getRun(key);
    fillHead();
  } };
}

function chosenFilters(filters) {
  const names = (here().query.get("filters") ?? "").split(",");
  return filters.filter((one) => names.includes(one.name));
}

function chips(filters, changed) {
  const row = h("p", { class: "tools filters", role: "group", "aria-label": "Filters of turns" });
  const fill = () => {
    const names = chosenFilters(filters).map((one) => one.name);
    show(row, filters.map((one) => h("button", { type: "button", id: `filter-${one.name}`, "aria-pressed": names.includes(one.name) ? "true" : "false",
      onclick: () => {
        remember({ filters: (names.includes(one.name) ? names.filter((n) => n !== one.name) : [...names, one.name]).join(",") });
        fill();
        document.getElementById(`filter-${one.name}`).focus();
        changed();
      } }, one.title)));
  };
  fill();
  return row;
}

function pager(found, size, go) {
  if (found.total <= size) return null;
  return h("p", { class: "tools" },
    h("button", { type: "button", disabled: found.offset === 0, onclick: () => go(Math.max(0, found.offset - size)) }, "← before"),
    h("span", { class: "quiet" }, ` ${whole(found.offset + 1)} to ${whole(found.offset + found.rows.length)} of ${whole(found.total)} `),
    h("button", { type: "button", disabled: found.offset + size >= found.total, onclick: () => go(found.offset + size) }, "after →"));
}

function settings(run) {
  return table(["setting", "value"], Object.entries(run.settings).map(([name, value]) => h("tr", {},
    h("th", { scope: "row" }, name), h("td", { class: "words" }, typeof value === "string" ? value : JSON.stringify(value)))));
}
