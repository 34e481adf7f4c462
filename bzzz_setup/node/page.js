// Keeps the page up to date: at every event, or every few seconds where the event port cannot be reached.
"use strict";
const QUICK = 5000, SLOW = 30000;
const state = document.getElementById("state");
let socket, last = "", wait = 1000, due = 0, busy = false;

function show(kind, words) {
  if (state.textContent === words) return;
  state.className = "state " + kind;
  state.textContent = words;
}

function put(next) {
  const newest = document.querySelector("#events [data-id]")?.dataset.id;
  for (const fresh of next.querySelectorAll("[data-live]")) {
    const old = document.getElementById(fresh.id);
    for (const each of old.querySelectorAll("details[open]")) fresh.querySelector("#" + CSS.escape(each.id))?.setAttribute("open", "");
    if (old.innerHTML === fresh.innerHTML) continue;
    const focused = old.contains(document.activeElement) && document.activeElement.closest("[id]")?.id;
    old.replaceChildren(...fresh.childNodes);
    if (focused) document.getElementById(focused)?.querySelector("summary")?.focus();
  }
  const events = [...document.querySelectorAll("#events [data-id]")];
  const known = events.findIndex(each => each.dataset.id === newest);
  const told = events.slice(0, known < 0 ? 1 : known).slice(0, 3).map(each => each.lastElementChild.textContent);
  if (told.length) document.getElementById("announce").textContent = told.reverse().join(". ");
}

async function refresh() {
  if (document.hidden || busy) return;
  busy = true;
  due = Date.now() + (socket ? SLOW : QUICK);
  try {
    const answer = await fetch("/");
    const next = new DOMParser().parseFromString(await answer.text(), "text/html");
    if (!next.getElementById("cards")) return location.reload();
    put(next);
    show(socket ? "live" : "polling", socket ? "live" : "every 5 seconds");
  } catch {
    show("lost", "no connection");
  } finally {
    busy = false;
  }
}

function connect() {
  const query = last && "?last=" + encodeURIComponent(last);
  let next;
  try {
    next = new WebSocket(`wss://${location.hostname}:${document.body.dataset.eventsPort}/events${query}`);
  } catch {
    return; // the browser's policy forbids it: the page is fetched all the same
  }
  next.onmessage = message => {
    socket = next;
    wait = 1000;
    last = JSON.parse(message.data).id;
    due = Math.min(due, Date.now() + 300); // several events often come together
  };
  next.onclose = () => {
    socket = undefined;
    due = Math.min(due, Date.now() + QUICK);
    setTimeout(connect, wait);
    wait = Math.min(2 * wait, SLOW);
  };
}

setInterval(() => Date.now() >= due && refresh(), 250);
document.addEventListener("visibilitychange", refresh);
connect();
