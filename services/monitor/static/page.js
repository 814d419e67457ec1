// Asks for the page again every two seconds and shows what changed; says so when the monitor does not answer.
"use strict";

const PERIOD = 2000;
const status = document.getElementById("status");
let since = new Date();

function say(text, away) {
  if (status.textContent !== text) status.textContent = text; // unchanged text is not announced again
  status.classList.toggle("away", away);
}

async function refresh() {
  try {
    const answer = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(5000) });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
    if (!page) throw new Error(`unexpected answer ${answer.status}`);
    morph(document.querySelector("main"), page);
    since = new Date();
    say("live, every 2 s", false);
  } catch {
    say(`The monitor does not answer; this is from ${since.toLocaleTimeString()}`, true);
  }
}

// Changes only what differs, so that scroll position, focus and selection stay.
function morph(old, fresh) {
  if (old.isEqualNode(fresh)) return;
  const [was, is] = [[...old.childNodes], [...fresh.childNodes]];
  if (old.nodeName !== fresh.nodeName || was.length !== is.length) return old.replaceWith(fresh);
  if (old.nodeType === Node.TEXT_NODE) old.data = fresh.data;
  if (old.nodeType === Node.ELEMENT_NODE) {
    for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
    for (const { name, value } of fresh.attributes) old.setAttribute(name, value);
  }
  was.forEach((child, i) => morph(child, is[i]));
}

async function loop() {
  if (!document.hidden) await refresh();
  setTimeout(loop, PERIOD);
}

loop();
