"use strict";

const PAUSES = [0.5, 1, 2, 4, 8]; // seconds before the next attempt; after the last one, the user decides
const PATIENCE = 30; // seconds for an answer; what the server does meanwhile is not lost
const KEPT = "spam-capture"; // in sessionStorage: how far this tab knows the job to be, for after a reload

const button = document.getElementById("button");
const bar = document.getElementById("bar");
const status = document.getElementById("status");
const problem = document.getElementById("problem");

class Failure extends Error {
  constructor(text, passes) {
    super(text);
    this.passes = passes; // whether the same request may do well later
  }
}

// Send one request; whatever comes instead of the JSON that was asked for becomes a Failure.
async function send(job) {
  let response;
  let answer = null;
  try {
    response = await fetch("capture", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ job }),
      signal: AbortSignal.timeout(PATIENCE * 1000),
    });
  } catch {
    throw new Failure("The server cannot be reached.", true);
  }
  try {
    answer = await response.json();
  } catch {
    // Not JSON: a page in HTML, from whoever stands before the server. Its text is not for the user.
  }
  if (response.ok && typeof answer?.text === "string") return answer;
  const text = typeof answer?.detail === "string" ? answer.detail : "The server has not answered as it should.";
  const refused = response.status >= 400 && response.status < 500 && ![408, 425, 429].includes(response.status);
  throw new Failure(text, !refused);
}

// Go on until the job is finished. Each request moves what fits.
async function capture() {
  if (button.disabled) return; // it is under way: a second click changes nothing
  const hadFocus = document.activeElement === button;
  button.disabled = true;
  keep(kept() ?? { job: null });
  let job = kept()?.job ?? null;
  let failures = 0;
  for (;;) {
    let trouble = "";
    try {
      const result = await send(job);
      job = result.job;
      show(result);
      if (result.finished || result.cancelled) break;
      keep(result);
      if (result.stalled) trouble = "Some messages are in use.";
    } catch (error) {
      trouble = error.message;
      if (!error.passes) {
        say(trouble);
        keep(null);
        break;
      }
    }
    failures = trouble ? failures + 1 : 0;
    if (failures > PAUSES.length) {
      say(`${trouble} What is done stays done. Press the button to go on.`);
      break;
    }
    say(trouble && `${trouble} What is done stays done. Trying again…`);
    if (trouble) await new Promise((resume) => setTimeout(resume, PAUSES[failures - 1] * 1000));
  }
  button.disabled = false;
  if (hadFocus && document.activeElement === document.body) button.focus();
}

function show(result) {
  bar.hidden = false;
  bar.value = result.share;
  status.textContent = result.text;
  if (!result.finished && !result.cancelled) return;
  status.textContent += result.finished ? ". All done." : ". Stopped.";
  say("");
  keep(null);
}

function say(text) {
  if (problem.textContent !== text) problem.textContent = text; // an alert is read out when it changes
}

function kept() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT));
  } catch {
    return null;
  }
}

function keep(result) {
  try {
    if (result === null) sessionStorage.removeItem(KEPT);
    else sessionStorage.setItem(KEPT, JSON.stringify(result));
  } catch {
    // A browser may forbid it. Then the page does not go on by itself after a reload.
  }
}

button.addEventListener("click", capture);

const before = kept();
if (before !== null) {
  if (before.text) show(before);
  capture();
}
