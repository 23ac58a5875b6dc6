// A page of the Console: joins the live list, the dialog, the tests and the filter.

import { follow } from "/console/static/combobox.js";
import { Live } from "/console/static/live.js";

const byId = (id) => document.getElementById(id);
const rows = byId("rows"), dialog = byId("dialog"), link = byId("link"), actions = byId("actions");
const settings = JSON.parse(byId("live").dataset.live);
const live = new Live(settings, rows, changed);
const signIn = () => "/console/login?" + new URLSearchParams({ next: location.pathname + location.search });
let focusedId = "";

// --- how fresh -----------------------------------------------------------------------------------------------------------------

const WORDS = {
  starting: "connecting", live: "live", stale: "stale", "signed-out": "signed out", gone: "not available", replaced: "not this session",
};

function span(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} days`;
}

function ages() {
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const isState = time.closest(".condition");
    // Whether an old state still lasts is not known.
    if (isState && !live.isFresh) continue;
    const text = span(live.wallNow - Date.parse(time.dateTime));
    const shown = isState ? `for ${text}` : `${text} ago`;
    if (time.textContent !== shown) time.textContent = shown;
  }
}

function ticked() {
  const text = `${WORDS[live.state]}, updated ${span(live.age)} ago`;
  if (link.textContent !== text) link.textContent = text;
  ages();
}
live.ticked = ticked;

function changed() {
  const isFresh = live.isFresh;
  document.documentElement.dataset.fresh = link.dataset.fresh = live.state;
  if (!isFresh && !actions.disabled) focusedId = document.activeElement?.id ?? "";
  actions.disabled = !isFresh;
  for (const button of dialog.querySelectorAll("[data-action=confirm]")) button.disabled = !isFresh;
  if (isFresh && focusedId && document.activeElement === document.body) byId(focusedId)?.focus();
  if (isFresh) focusedId = "";
  if (live.problems !== undefined) {
    const problems = byId("problems");
    problems.textContent = live.problems ? `${live.problems} problem${live.problems === 1 ? "" : "s"}` : "no problems";
    problems.dataset.count = live.problems;
  }
  const notice = byId("notice");
  notice.hidden = isFresh || live.state === "starting";
  if (!notice.hidden) notice.replaceChildren(...said());
  ticked();
}

function said() {
  if (live.state === "signed-out") {
    const anchor = Object.assign(document.createElement("a"), { href: signIn(), textContent: "Sign in again" });
    return ["You are signed out: the session is over, or its key was deleted. ", anchor, " to come back to this page."];
  }
  if (live.state === "gone") return ["This environment does not exist any more, or your key may not visit it."];
  if (live.state === "replaced") {
    const anchor = Object.assign(document.createElement("a"), { href: location.href, textContent: "Load it again" });
    return ["Another session has begun in this browser. This page belongs to the earlier one. ", anchor, " to go on."];
  }
  return [`${live.notice || "The server does not answer."} You see an old state. Actions are off until it is up to date again.`];
}

// --- changes -------------------------------------------------------------------------------------------------------------------

const LOST = "<h2 id=\"dialog-title\">The server did not answer</h2><p>It is not known whether the change was made. The list shows it as soon as the server answers.</p>";

async function post(path, values, seconds) {
  const body = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) for (const each of [value].flat()) body.append(name, each);
  const response = await fetch(`${settings.base}/${path}`, {
    method: "POST", body, signal: AbortSignal.timeout(seconds * 1000),
    headers: { "X-Requested-With": "console", "X-Form-Token": settings.token },
  });
  if (response.status === 401) live.end("signed-out");
  return { ok: response.ok, status: response.status, outcome: response.headers.get("X-Lensway-Outcome"), html: await response.text() };
}

function progress(text) { const place = byId("progress"); place.hidden = !text; place.textContent = text; }

function open(html, confirm) {
  dialog.innerHTML = html;
  if (!dialog.querySelector("[data-action=close]")) {
    dialog.insertAdjacentHTML("beforeend", '<div class="buttons"><button type="button" data-action="close" autofocus>Close</button></div>');
  }
  dialog.confirm = confirm;
  if (!dialog.open) dialog.showModal();
  dialog.querySelector("[autofocus]")?.focus();
}

async function change(path, values, doing) {
  progress(doing);
  let answer;
  try { answer = await post(path, values, 20); }
  catch { open(LOST); live.refresh(); return; }
  finally { progress(""); }
  if (answer.status === 401) { dialog.close(); return; }
  if (answer.outcome === "ask") open(answer.html, () => change(path, { ...values, confirm: "yes" }, doing));
  else if (answer.ok) { dialog.close(); live.refresh(); }
  else open(answer.ok === false && answer.status === 403 && !answer.html.includes("<") ? `<h2 id="dialog-title">Not allowed</h2><p>${answer.html}</p>` : answer.html);
}

async function test(button) {
  const source = button.dataset.source, place = byId(button.dataset.result);
  button.dataset.busy = "";
  button.disabled = true;
  button.textContent = "Testing …";
  try {
    const { status, html } = await post("test", { source }, 30);
    if (status !== 401) place.innerHTML = html;
  } catch {
    place.innerHTML = '<div class="test failed" role="alert"><h3>The test did not end: the server did not answer.</h3></div>';
  } finally {
    delete button.dataset.busy;
    button.disabled = false;
    button.textContent = "Test connection";
    ages();
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-action]");
  if (!button) return;
  const { action, runner, source } = button.dataset;
  if (action === "close") dialog.close();
  if (action === "confirm") { button.disabled = true; dialog.confirm?.(); }
  if (action === "remove") change("assign", { action, runner, source }, `Taking ${source} from ${runner} …`);
  if (action === "resume") change("resume", { runner }, `Resuming ${runner} …`);
  if (action === "test") test(button);
});

follow(rows, settings.base, (runner, source) =>
  change("assign", { action: "add", runner, source }, `Testing ${source.join(", ")} from ${runner} …`));

// --- parts of the list ---------------------------------------------------------------------------------------------------------

const here = `${settings.base}/${settings.kind}`;
const filter = document.querySelector("form.filter");

async function go(query, isStep) {
  history[isStep ? "pushState" : "replaceState"](null, "", here + (query ? "?" + query : ""));
  await live.view(query);
}

rows.addEventListener("click", (event) => {
  const anchor = event.target.closest("a[href]");
  if (!anchor || event.ctrlKey || event.metaKey || event.shiftKey || new URL(anchor.href).pathname !== here) return;
  event.preventDefault();
  const query = new URL(anchor.href).search.slice(1), values = new URLSearchParams(query);
  filter.elements.q.value = values.get("q") ?? "";
  filter.elements.problems.checked = values.get("problems") === "1";
  go(query, !anchor.hasAttribute("data-part"));
});
addEventListener("popstate", () => live.view(location.search.slice(1)));

let typing;
const filtered = () => {
  const values = new URLSearchParams(new FormData(filter));
  if (!values.get("q")) values.delete("q");
  go(values.toString(), false);
};
filter.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(filtered, 120); });
filter.addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(typing); filtered(); });

for (const menu of document.querySelectorAll("details.menu")) {
  document.addEventListener("click", (event) => { if (!menu.contains(event.target)) menu.open = false; });
  menu.addEventListener("keydown", (event) => { if (event.key === "Escape") { menu.open = false; menu.querySelector("summary").focus(); } });
}

changed();
live.start();
