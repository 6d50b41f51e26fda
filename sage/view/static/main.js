// Shows the place that the address names, follows it, and keeps what is going on up to date.
import { h, link, note, show } from "./dom.js";
import { here, to } from "./route.js";
import { episodePage } from "./episode.js";
import { pairPage } from "./pair.js";
import { runPage } from "./run.js";
import { runsPage } from "./runs.js";
import { FILE, isFile } from "./source.js";

const EVERY_MS = 2000;
const KEYS = [
  ["← → or h l", "the turn before, the next"], ["Home End", "the first turn, the last"],
  ["p n", "the episode before, the next of the same moment"], ["c", "another colouring of the tokens"],
  ["d", "of two runs: the turn at which they part"], ["/", "find a run"], ["u", "up: from a turn to its run, to the runs"],
];
let page = { keys: {}, poll: null };
let number_ = 0;

async function render() {
  const { name, words } = here();
  const mine = (number_ += 1);
  const main = document.getElementById("main");
  const room = h("div", {});
  page = { keys: {}, poll: null };
  crumbs(name, words);
  try {
    let made = null;
    if (name === "run") made = await runPage(room, words, filters());
    else if (name === "episode") made = await episodePage(room, words);
    else if (name === "pair") made = await pairPage(room, words);
    else made = { poll: await runsPage(room) };
    if (mine !== number_) return;
    page = { keys: made?.keys ?? {}, poll: made?.poll ?? null };
  } catch (error) {
    if (mine !== number_) return;
    show(room, h("h1", {}, "That cannot be shown"), note([error.message]), h("p", {}, link(to("runs"), "All runs")));
  }
  show(main, room);
  document.title = `${document.querySelector("h1")?.textContent ?? "Runs"} · sage view`;
  main.dataset.ready = String(mine);
  main.dataset.place = name;
}

function filters() {
  return JSON.parse(document.getElementById("filters").textContent);
}

function crumbs(name, words) {
  const up = [link(to("runs"), "Runs")];
  if (name === "run" || name === "episode") up.push(" › ", link(to("run", [words[0]]), words[0]));
  if (name === "episode") up.push(" › turn by turn");
  if (name === "pair") up.push(" › ", link(to("pair", words.slice(0, 2)), "two runs"));
  show(document.getElementById("crumbs"), h("strong", {}, "sage view"), " ", up);
}

function upwards() {
  const { name, words } = here();
  if (name === "episode") location.hash = to("run", [words[0]], { phase: words[1], step: words[2], split: words[3] });
  else if (name === "pair" && words.length > 2) location.hash = to("pair", words.slice(0, 2), { phase: words[2], step: words[3], split: words[4] });
  else location.hash = to("runs");
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  if (event.key === "/" && document.getElementById("search")) {
    event.preventDefault();
    document.getElementById("search").focus();
  } else if (event.key === "u") upwards();
  else if (page.keys[event.key]) {
    event.preventDefault();
    page.keys[event.key]();
  }
});

async function follow() {
  if (!document.hidden && page.poll) {
    try {
      await page.poll();
      pulse("live");
    } catch (error) {
      pulse(error.message);
    }
  }
  setTimeout(follow, EVERY_MS);
}

function pulse(text) {
  const place = document.getElementById("pulse");
  if (place.textContent !== text) place.textContent = text;
}

show(document.getElementById("keys"), h("summary", {}, "Keys"),
  h("dl", { class: "numbers" }, KEYS.map(([keys, what]) => h("div", {}, h("dt", {}, keys), h("dd", {}, what)))));
if (isFile) pulse(`one file, made ${FILE.made}${FILE.left_out ? `; ${FILE.left_out}` : ""}`);
else setTimeout(follow, EVERY_MS);
addEventListener("hashchange", render);
render();
