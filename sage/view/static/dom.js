// Elements made of data: a text is always text, never markup.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(3).filter((one) => one !== null && one !== undefined && one !== false)
    .map((one) => (one instanceof Node ? one : document.createTextNode(String(one)))));
  return element;
}

export function show(parent, ...children) {
  parent.replaceChildren(...children.flat(3).filter(Boolean));
}

export function table(head, rows, attributes = {}) {
  return h("div", { class: "wide" },
    h("table", attributes,
      h("thead", {}, h("tr", {}, head.map((one) => (one instanceof Node ? one : h("th", { scope: "col" }, one))))),
      h("tbody", {}, rows)));
}

export function link(to, ...children) {
  return h("a", { href: to }, ...children);
}

export function note(sentences) {
  return sentences.length === 0 ? null
    : h("ul", { class: "notes" }, sentences.map((one) => h("li", {}, one)));
}

// A text as it was recorded: line breaks kept, what cannot be seen made visible.
export function said(text, attributes = {}) {
  return h("pre", { class: "said", ...attributes }, visible(text ?? ""));
}

export function visible(text) {
  return String(text).replace(/[\u0000-\u0008\u000b-\u001f\u007f\u202a-\u202e\u2066-\u2069]/g,
    (sign) => (sign.charCodeAt(0) < 32 ? String.fromCharCode(0x2400 + sign.charCodeAt(0)) : "\ufffd"));
}

// Of several questions about one place the last is shown, in whatever order the answers come.
export function lastOf() {
  let count = 0;
  return async (question) => {
    const mine = (count += 1);
    const answer = await question;
    return mine === count ? answer : null;
  };
}
