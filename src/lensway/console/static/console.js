// The Runners page: confirms changes with their warnings, tests connections, and follows what happens.
"use strict";
const token = document.querySelector('meta[name="form-token"]').content;
const rows = document.getElementById("rows");
const dialog = document.getElementById("dialog");
const link = document.getElementById("link");
const headers = { "X-Requested-With": "console", "X-Form-Token": token, "Content-Type": "application/x-www-form-urlencoded" };

async function ask(path, options) {
  const response = await fetch("/console/" + path, { headers, ...options });
  if (response.status === 401) { location.href = "/console/login"; throw new Error("signed out"); }
  return { ok: response.ok, html: await response.text() };
}
const post = (path, values) => ask(path, { method: "POST", body: new URLSearchParams(values) });

function show(html) {
  // Open details, test results and the focus survive a refresh.
  const open = [...rows.querySelectorAll("details[open]")].map((d) => d.closest("[data-runner]")?.dataset.runner);
  const results = new Map([...rows.querySelectorAll("[data-result]")].map((r) => [r.dataset.result, r.innerHTML]));
  rows.innerHTML = html;
  for (const name of open) rows.querySelector(`[data-runner="${CSS.escape(name)}"] details`)?.setAttribute("open", "");
  for (const [name, result] of results) {
    const place = rows.querySelector(`[data-result="${CSS.escape(name)}"]`);
    if (place) place.innerHTML = result;
  }
}

let pending = false, again = false;
async function refresh() {
  if (pending || rows.contains(document.activeElement) && document.activeElement.tagName === "SELECT") { again = true; return; }
  pending = true;
  try { const { ok, html } = await ask("runners/rows"); if (ok) show(html); }
  finally { pending = false; if (again) { again = false; setTimeout(refresh, 100); } }
}

async function change(action, runner, source) {
  const { html } = await ask("preview?" + new URLSearchParams({ action, runner, source }));
  dialog.innerHTML = html;
  dialog.returnValue = "";
  dialog.showModal();
  dialog.onclose = async () => {
    if (dialog.returnValue !== "confirm") { refresh(); return; }
    const result = await post("assign", { action, runner, source });
    if (result.ok) show(result.html);
    else { dialog.innerHTML = result.html + '<form method="dialog" class="buttons"><button>Close</button></form>'; dialog.onclose = refresh; dialog.showModal(); }
  };
}

async function test(button) {
  const source = button.dataset.source;
  button.disabled = true; button.textContent = "Testing …";
  try {
    const { html } = await post("test", { source });
    rows.querySelector(`[data-result="${CSS.escape(source)}"]`).innerHTML = html;
  } finally { button.disabled = false; button.textContent = "Test connection"; }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-action]");
  if (!button) return;
  if (button.dataset.action === "remove") change("remove", button.dataset.runner, button.dataset.source);
  if (button.dataset.action === "test") test(button);
});
document.addEventListener("change", (event) => {
  const select = event.target;
  if (select.matches('select[data-action="add"]') && select.value) { const source = select.value; select.value = ""; select.blur(); change("add", select.dataset.runner, source); }
  if (select.matches("select[data-submit]")) select.form.submit();
});

const events = new EventSource("/console/events");
for (const kind of ["session", "assignment", "health", "drain", "test", "warning", "source", "lens", "runner"]) events.addEventListener(kind, refresh);
events.onopen = () => { link.textContent = "live"; link.classList.remove("lost"); refresh(); };
events.onerror = () => { link.textContent = "connection lost, retrying"; link.classList.add("lost"); };
