// The list of runs, and the curves of those that are picked.
import { h, link, note, show, table } from "./dom.js";
import { LABELS, doing, plural, span, whole, withInterval } from "./format.js";
import { plot } from "./plot.js";
import { here, remember, to, toPair } from "./route.js";
import { getRun, getRuns } from "./source.js";

const COLUMNS = [
  ["state", "state", (run) => run.state],
  ["name", "method", (run) => run.name],
  ["env", "games", (run) => run.env],
  ["seed", "seed", (run) => Number(run.seed ?? -1)],
  ["step", "steps", (run) => run.step],
  ["success", "success in %, last evaluation [95 %]", (run) => main(run)?.rate ?? -1],
  ["left", "left", (run) => run.left_s ?? -1],
  ["run", "run", (run) => run.where],
];
const SHOWN = 200;

function main(run) {
  return run.success.find((one) => one.split === "valid_unseen") ?? run.success.at(-1);
}

export async function runsPage(room) {
  const state = { answer: await getRuns(), shown: SHOWN };
  const search = h("input", { type: "search", id: "search", placeholder: "method, games, seed, state …",
    value: here().query.get("q") ?? "", oninput: () => { remember({ q: search.value }); state.shown = SHOWN; fill(); } });
  const list = h("div", {});
  const picked = h("section", { "aria-label": "Picked runs" });
  const count = h("p", { class: "quiet", role: "status" });
  show(room, h("h1", {}, "Runs"), note(state.answer.notes),
    h("p", { class: "tools" }, h("label", { for: "search" }, "Find "), search), count, list, picked);

  function sorted() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const order = here().query.get("sort") ?? "";
    const [, , read] = COLUMNS.find(([name]) => name === order.replace("-", "")) ?? [];
    const rows = state.answer.runs.filter((run) => {
      const text = `${run.name} ${run.method} ${gamesOf(run)} seed=${run.seed} ${run.state} ${run.where}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    if (read) rows.sort((a, b) => { const [x, y] = [read(a), read(b)]; return x < y ? -1 : x > y ? 1 : 0; });
    return order.startsWith("-") ? rows.reverse() : rows;
  }

  function fill() {
    const rows = sorted();
    const focused = document.activeElement?.id;
    show(list, table(["pick", ...COLUMNS.map(headOf)], rows.slice(0, state.shown).map(lineOf), { class: "runs" }),
      rows.length > state.shown && h("p", {}, h("button", { type: "button", onclick: () => { state.shown += 1000; fill(); } },
        `Show more (${whole(rows.length - state.shown)} are left)`)));
    count.textContent = `${whole(rows.length)} of ${plural(state.answer.runs.length, "run")}`
      + (state.answer.waiting ? `; the success of ${whole(state.answer.waiting)} is still being counted` : "");
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }

  function headOf([name, title]) {
    const order = here().query.get("sort") ?? "";
    const turned = order === name ? `-${name}` : name;
    const arrow = order === name ? " ↑" : order === `-${name}` ? " ↓" : "";
    return h("th", { scope: "col", "aria-sort": arrow ? (arrow === " ↑" ? "ascending" : "descending") : null },
      h("button", { type: "button", id: `sort-${name}`, class: "plain", onclick: () => { remember({ sort: turned }); fill(); } }, title + arrow));
  }

  function lineOf(run) {
    const box = h("input", { type: "checkbox", id: `pick-${run.key}`, "aria-label": `pick ${run.name} seed ${run.seed}`,
      onchange: () => { pick(run.key, box.checked); } });
    box.checked = picks().includes(run.key);
    return h("tr", {},
      h("td", {}, box),
      h("td", {}, h("span", { class: `state ${run.state}` }, run.state), run.reason && h("div", { class: "quiet reason" }, run.reason)),
      h("td", {}, link(to("run", [run.key]), run.name), run.notes.length > 0 && note(run.notes)),
      h("td", {}, run.env, run.sources.length > 0 && h("div", { class: "quiet" }, run.sources.join(", "))), h("td", {}, run.seed ?? "–"),
      h("td", { class: "progress" }, run.steps ? `${whole(run.step)}/${whole(run.steps)}` : whole(run.step),
        run.steps > 0 && h("progress", { max: run.steps, value: run.step, "aria-hidden": "true" }),
        run.state === "running" && h("div", { class: "quiet" }, run.now ? doing(run.now) : run.phase)),
      h("td", {}, run.success.map((one) => h("div", {}, withInterval(one), " ",
        h("span", { class: "quiet" }, `${one.split}, n ${whole(one.n)}, step ${whole(one.step)}`)))),
      h("td", {}, run.state === "running" ? span(run.left_s) : ""),
      h("td", { class: "quiet path" }, run.where));
  }

  function picks() {
    return (here().query.get("pick") ?? "").split(",").filter(Boolean);
  }

  function pick(key, on) {
    remember({ pick: [...picks().filter((one) => one !== key), ...(on ? [key] : [])].join(",") });
    fillPicked();
  }

  async function fillPicked() {
    const keys = picks();
    if (keys.length === 0) {
      show(picked, h("p", { class: "quiet" }, "Pick runs to see their curves; pick two of one seed to read them side by side."));
      return;
    }
    const found = await Promise.all(keys.map((key) => getRun(key).catch(() => null)));
    if (keys.join() === picks().join()) show(picked, pickedRuns(found.filter(Boolean)));
  }

  fill();
  fillPicked();
  return async () => {
    const answer = await getRuns(state.answer.version);
    if (answer.same) return;
    state.answer = answer;
    fill();
    if (answer.runs.some((run) => run.state === "running" && picks().includes(run.key))) fillPicked();
  };
}

// Scores on generated games are none of the benchmark's, so where games are named it is said which they are.
export function gamesOf(run) {
  return run.sources.length > 0 ? `${run.env} (${run.sources.join(", ")} games)` : run.env;
}

export function nameOf(run) {
  return `${run.name} s${run.seed}`;
}

function pickedRuns(runs) {
  const [a, b] = runs;
  const pair = runs.length === 2 && a.seed === b.seed && a.env === b.env;
  return [
    h("h2", {}, plural(runs.length, "picked run")),
    pair && h("p", {}, link(toPair(a.key, b.key), "Read these two side by side"), ": one seed, the same games."),
    h("div", { class: "plots" }, curves(runs)),
    differing(runs),
  ];
}

export function curves(runs) {
  const splits = [...new Set(runs.flatMap((run) => run.rates.map((rate) => rate.split)))];
  const of = (run, index, column) => ({ label: nameOf(run), xs: run.steps_table.step, ys: run.steps_table[column], index });
  return [
    ...splits.map((split) => plot(`Success on ${split}`, runs.map((run, index) => {
      const rates = run.rates.filter((rate) => rate.split === split);
      return { label: nameOf(run), xs: rates.map((r) => r.step), ys: rates.map((r) => r.rate), index };
    }), { share: true })),
    plot("Success of training episodes", runs.map((run, index) => of(run, index, "success_rate")), { share: true }),
    plot("Loss", runs.map((run, index) => of(run, index, "loss"))),
    plot("Divergence of a token, nats", runs.map((run, index) => of(run, index, "mean_divergence"))),
    ...runs.slice(0, 4).map(shares),
  ].filter(Boolean);
}

function shares(run) {
  const judged = LABELS.map((label) => [label, `share_${label.toLowerCase()}`])
    .filter(([, column]) => (run.steps_table[column] ?? []).some((share) => share > 0));
  if (judged.length === 0) return null;  // every turn is supervised alike, or none was made
  return plot(`Labels of ${nameOf(run)}`, judged.map(([label, column], index) => (
    { label, xs: run.steps_table.step, ys: run.steps_table[column], index,
      colour: `--${label.toLowerCase().replace("_", "-")}` })), { share: true });
}

function differing(runs) {
  if (runs.length < 2) return null;
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.settings)))];
  const rows = names.map((name) => [name, runs.map((run) => JSON.stringify(run.settings[name] ?? null))])
    .filter(([, values]) => new Set(values).size > 1);
  return [h("h3", {}, "What differs"),
    rows.length === 0 ? h("p", { class: "quiet" }, "No setting that can change a result.")
      : table(["setting", ...runs.map(nameOf)], rows.map(([name, values]) => h("tr", {},
        h("th", { scope: "row" }, name), values.map((value) => h("td", {}, value === "null" ? "–" : value)))))];
}
