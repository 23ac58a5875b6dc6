// A page of the Console: joins the live list, the dialog, the tests and the filter.

import { follow } from "/console/static/combobox.js";
import { Live } from "/console/static/live.js";
import "/console/static/menus.js";

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
    const shown = time.dataset.ago === "short" ? text : isState ? `for ${text}` : `${text} ago`;
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
  // The same outside the list: what acts is off until the page is live again.
  for (const button of document.querySelectorAll(".head .tools button, dialog button:not([data-action=close], [data-action=copy])")) {
    if (isFresh && "stale" in button.dataset) { button.disabled = false; delete button.dataset.stale; }
    else if (!isFresh && !button.disabled) { button.disabled = true; button.dataset.stale = ""; }
  }
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
  if (live.state === "gone") return [settings.object ? `${settings.object} does not exist any more.` : "This environment does not exist any more, or your key may not visit it."];
  if (live.state === "replaced") {
    const anchor = Object.assign(document.createElement("a"), { href: location.href, textContent: "Load it again" });
    return ["Another session has begun in this browser. This page belongs to the earlier one. ", anchor, " to go on."];
  }
  return [`${live.notice || "The server does not answer."} You see an old state. Actions are off until it is up to date again.`];
}

// --- changes -------------------------------------------------------------------------------------------------------------------

const LOST = "<h2 id=\"dialog-title\">The server did not answer</h2><p>It is not known whether the change was made. The page shows it as soon as the server answers.</p>";

export async function post(path, values, seconds) {
  const body = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) for (const each of [value].flat()) body.append(name, each);
  const response = await fetch(`${settings.base}/${path}`, {
    method: "POST", body, cache: "no-store", signal: AbortSignal.timeout(seconds * 1000),
    headers: { "X-Requested-With": "console", "X-Form-Token": settings.token },
  });
  if (response.status === 401) live.end("signed-out");
  return { ok: response.ok, status: response.status, outcome: response.headers.get("X-Lensway-Outcome"), html: await response.text() };
}

function progress(text) { const place = byId("progress"); place.hidden = !text; place.textContent = text; }

export function open(html, confirm) {
  dialog.innerHTML = html;
  if (!dialog.querySelector("[data-action=close]")) {
    dialog.insertAdjacentHTML("beforeend", '<div class="buttons"><button type="button" data-action="close" autofocus>Close</button></div>');
  }
  dialog.confirm = confirm;
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  for (const select of dialog.querySelectorAll("select[data-shows]")) showSettings(select);
  watch();
  dialog.querySelector("[autofocus]")?.focus();
}

/** What was filled in, by name. */
function written(place) {
  const values = {};
  for (const field of place.querySelectorAll("input[name], select[name], textarea[name]")) {
    if (field.type !== "checkbox" || field.checked) values[field.name] = [...(values[field.name] ?? []), field.value];
  }
  return values;
}

/** A form that comes back has what was written; the server does not repeat it, because it may hold a password. */
function refill(values) {
  for (const field of dialog.querySelectorAll("form[data-post] input[name]:not([type=checkbox])")) field.value ||= [values[field.name] ?? ""].flat()[0];
}

/** Post a change. The server makes it (done), asks first (ask), has something to show (show), or leads elsewhere (go). */
export async function change(path, values, doing) {
  progress(doing);
  let answer;
  try { answer = await post(path, values, 20); }
  catch { open(LOST); live.refresh(); return; }
  finally { progress(""); }
  if (answer.status === 401) { dialog.close(); return; }
  if (answer.outcome === "show") { open(answer.html, null); refill(values); live.refresh(); }
  else if (answer.outcome === "go") location.assign(settings.base.split("/console/")[0] + answer.html);  // below a path prefix, too
  else if (answer.outcome === "ask") open(answer.html, () => change(path, { ...values, ...written(dialog), confirm: "yes" }, doing));
  else if (answer.ok) { dialog.close(); live.refresh(); }
  else open(answer.ok === false && answer.status === 403 && !answer.html.includes("<") ? `<h2 id="dialog-title">Not allowed</h2><p>${answer.html}</p>` : answer.html);
}

/** The runner of a button, or the one chosen in the field that it names. */
const runnerOf = (button) => button.dataset.runner ?? byId(button.dataset.runnerOf)?.value;

async function test(button) {
  const source = button.dataset.source, runner = runnerOf(button), place = byId(button.dataset.result), label = button.textContent;
  button.dataset.busy = "";
  button.disabled = true;
  button.textContent = "Testing …";
  try {
    const { status, html } = await post("test", runner ? { source, runner } : { source }, 30);
    if (status !== 401) place.innerHTML = html;
  } catch {
    place.innerHTML = '<div class="test failed" role="alert"><h3>The test did not end: the server did not answer.</h3></div>';
  } finally {
    delete button.dataset.busy;
    button.disabled = false;
    button.textContent = label;
    ages();
  }
}

// --- dialogs that live -----------------------------------------------------------------------------------------------------------

let watching;

/** A part of the dialog that follows something: fetched again every second while it is on show. */
function watch() {
  clearTimeout(watching);
  const place = dialog.open && dialog.querySelector("[data-follow]");
  if (!place) return;
  watching = setTimeout(async () => {
    const html = document.hidden ? null : await fetchPart(place.dataset.follow).catch(() => null);
    if (html !== null && place.isConnected) Idiomorph.morph(place, html, { morphStyle: "innerHTML" });
    watch();
  }, 1000);
}

/** The settings that the chosen kind of database has. */
function showSettings(select) {
  const { shows, example } = select.selectedOptions[0].dataset;
  for (const each of select.form.querySelectorAll("[data-setting]")) {
    each.hidden = each.dataset.setting !== shows;
    if ("placeholder" in each) { each.disabled = each.hidden; if (!each.hidden) each.placeholder = example; }
  }
}
document.addEventListener("change", (event) => { if (event.target.matches("select[data-shows]")) showSettings(event.target); });

document.addEventListener("toggle", async (event) => {
  const details = event.target, place = details.querySelector?.(":scope > .filled");
  if (!details.open || !details.dataset.fill || !place || place.childElementCount) return;
  place.textContent = "Loading …";
  place.innerHTML = await fetchPart(details.dataset.fill).catch(() => '<p class="fault">The server did not answer.</p>');
}, true);

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-action]");
  if (!button) return;
  const { action, runner, source } = button.dataset;
  if (action === "close") dialog.close();
  if (action === "confirm") { button.disabled = true; dialog.confirm?.(); }
  if (action === "remove") change("assign", { action, runner, source }, `Taking ${source} from ${runner} …`);
  if (action === "resume") change("resume", { runner }, `Resuming ${runner} …`);
  if (action === "test") test(button);
  if (action === "assign") assign(runnerOf(button), button.dataset.sources.split(","));
  if (action === "post") change(button.dataset.path, JSON.parse(button.dataset.values), button.dataset.doing);
  if (action === "open") openPart(button.dataset.path);
  if (action === "copy") copy(button);
});

async function fetchPart(path) {
  const response = await fetch(`${settings.base}/${path}`,
    { headers: { "X-Requested-With": "console", "X-Form-Token": settings.token }, cache: "no-store", signal: AbortSignal.timeout(20_000) });
  if (response.status === 401) live.end("signed-out");
  return response.text();
}

/** A dialog of the server's: a form to fill in, something to look at. */
async function openPart(path) {
  progress("Loading …");
  try { open(await fetchPart(path)); }
  catch { open(LOST); }
  finally { progress(""); }
}

async function copy(button) {
  const place = byId(button.dataset.copy), text = place.textContent;
  try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; }
  catch { getSelection().selectAllChildren(place); button.textContent = "Marked: press Ctrl+C"; }
}

// A form with data-post is sent by script, with the token of the sign-in: its address, below the environment, is the attribute.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.dataset.post) return;
  event.preventDefault();
  const values = {};
  for (const [name, value] of new FormData(form, event.submitter)) values[name] = [...(values[name] ?? []), value];
  change(form.dataset.post, values, form.dataset.doing ?? "Working …");
});

function assign(runner, source) {
  change("assign", { action: "add", runner, source }, `Testing ${source.length > 3 ? `${source.length} sources` : source.join(", ")} from ${runner} …`);
}
follow(rows, settings.base, assign);

// --- parts of the list ---------------------------------------------------------------------------------------------------------

const here = settings.path;
const filter = document.querySelector("form.filter");
const fields = () => [...(filter?.elements ?? [])].filter((field) => field.name);

async function go(query, isStep) {
  history[isStep ? "pushState" : "replaceState"](null, "", here + (query ? "?" + query : ""));
  await live.view(query);
}

function fill(query) {
  const values = new URLSearchParams(query);
  for (const field of fields()) {
    if (field.type === "checkbox") field.checked = values.get(field.name) === field.value;
    else field.value = values.get(field.name) ?? "";
  }
}

rows.addEventListener("click", (event) => {
  const anchor = event.target.closest("a[href]");
  if (!anchor || event.ctrlKey || event.metaKey || event.shiftKey || new URL(anchor.href).pathname !== here) return;
  event.preventDefault();
  const query = new URL(anchor.href).search.slice(1);
  fill(query);
  go(query, !anchor.hasAttribute("data-part"));
});
addEventListener("popstate", () => { fill(location.search); live.view(location.search.slice(1)); });

let typing;
const filtered = () => {
  const values = new URLSearchParams();
  for (const [name, value] of new FormData(filter)) if (value) values.append(name, value);
  go(values.toString(), false);
};
filter?.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(filtered, 50); });
filter?.addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(typing); filtered(); });

export { live, settings };

changed();
live.start();
