// The trajectory reader: fills three pickers and shows one episode, turn by turn. Data: the JSON block #episodes.
(() => {
  const episodes = JSON.parse(document.getElementById("episodes").textContent);
  const colours = JSON.parse(document.getElementById("label-colours").textContent);
  const method = document.getElementById("reader-method");
  const outcome = document.getElementById("reader-outcome");
  const episode = document.getElementById("reader-episode");
  const turns = document.getElementById("reader-turns");
  const add = (parent, tag, text, name) => {
    const node = document.createElement(tag);
    if (text !== undefined) node.textContent = text;
    if (name) node.className = name;
    parent.append(node);
    return node;
  };
  const option = (select, value, text) => { add(select, "option", text).value = value; };
  for (const name of [...new Set(episodes.map((e) => e.method))].sort()) option(method, name, name);
  for (const name of ["any", ...new Set(episodes.map((e) => e.status))]) option(outcome, name, name);
  const number = (value, digits) => (value === null ? "–" : value.toFixed(digits));
  const show = () => {
    turns.replaceChildren();
    const chosen = episodes[Number(episode.value)];
    if (!chosen) { add(turns, "p", "No recorded episode fits these choices."); return; }
    add(turns, "p", `${chosen.method}, seed ${chosen.seed}, step ${chosen.step}, ${chosen.phase} ${chosen.split}, ` +
      `${chosen.task} (${chosen.task_type}): ${chosen.status} after ${chosen.turns.length} turns`);
    for (const t of chosen.turns) {
      const card = add(turns, "div", undefined, "turn");
      card.style.borderLeftColor = colours[t.label] || "#adb5bd";
      const head = add(card, "div", undefined, "head");
      add(head, "b", `turn ${t.turn}`);
      if (t.label) add(head, "span", `label ${t.label}`).style.color = colours[t.label] || "inherit";
      if (t.weight !== null) add(head, "span", `weight ${number(t.weight, 2)}`);
      if (t.effective_weight !== null) add(head, "span", `effective ${number(t.effective_weight, 2)}`);
      if (t.confidence !== null) add(head, "span", `confidence ${number(t.confidence, 3)}`);
      if (t.before !== null) add(head, "span", `expert distance ${t.before} → ${t.after === null ? "?" : t.after}`);
      if (t.oracle) add(head, "span", `oracle ${t.oracle}`);
      if (t.failure && t.failure !== "none") add(head, "span", `failure ${t.failure}`);
      const list = add(card, "dl");
      for (const [name, key] of [["sees", "observation"], ["thinks", "thought"], ["does", "action"], ["gets", "feedback"],
        ["judge says", "judge_reply"]]) {
        if (!t[key]) continue;
        add(list, "dt", name);
        add(list, "dd", t[key], key);
      }
    }
  };
  const fill = () => {
    episode.replaceChildren();
    episodes.forEach((e, i) => {
      if (e.method === method.value && (outcome.value === "any" || e.status === outcome.value)) {
        option(episode, i, `${e.phase} step ${e.step} · seed ${e.seed} · ${e.task} · ${e.status}`);
      }
    });
    show();
  };
  method.onchange = fill;
  outcome.onchange = fill;
  episode.onchange = show;
  fill();
})();
