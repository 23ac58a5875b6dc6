// The field for adding sources to a runner, by the ARIA pattern of an editable combobox with a list.
//
// Down and typing open the list, Enter takes the choice, Escape closes. Shift+Enter or a click with Ctrl marks several.

let open = null;          // { input, box, timer }

const options = () => [...(open?.box.querySelectorAll("[role=option]") ?? [])];
const active = () => open && document.getElementById(open.input.getAttribute("aria-activedescendant") ?? "");

export function follow(rows, base, choose) {
  rows.addEventListener("keydown", (event) => {
    if (event.target.matches?.("input[role=combobox]")) onKey(event, base, choose);
  });
  rows.addEventListener("input", (event) => {
    if (event.target.matches?.("input[role=combobox]")) show(event.target, base, 120);
  });
  rows.addEventListener("click", (event) => {
    if (event.target.matches?.("input[role=combobox]")) show(event.target, base, 0);
    const option = event.target.closest?.("[role=option]");
    if (!option || !open) return;
    if (event.ctrlKey || event.metaKey || event.shiftKey) mark(option);
    else take(option, choose);
  });
  // The list is not left by a click into it: the focus stays in the field.
  rows.addEventListener("mousedown", (event) => { if (event.target.closest?.(".choices")) event.preventDefault(); });
  rows.addEventListener("focusout", (event) => { if (open && event.target === open.input) close(); });
}

function onKey(event, base, choose) {
  const { key } = event, input = event.target;
  if (key === "ArrowDown" || key === "ArrowUp") {
    event.preventDefault();
    if (open?.input !== input) { show(input, base, 0); return; }
    const all = options(), at = all.indexOf(active());
    if (all.length) point(all[(at + (key === "ArrowDown" ? 1 : at < 0 ? 0 : -1) + all.length) % all.length]);
  } else if (key === "Home" || key === "End") {
    if (open && active()) { event.preventDefault(); point(options().at(key === "Home" ? 0 : -1)); }
  } else if (key === "Enter") {
    event.preventDefault();
    const option = active() ?? (options().length === 1 ? options()[0] : null);
    if (!open || (!option && !marked().length)) { if (!open) show(input, base, 0); return; }
    if (event.shiftKey && option) mark(option); else take(option, choose);
  } else if (key === "Escape" && open) {
    event.preventDefault();
    close();
  }
}

async function show(input, base, delay) {
  if (open?.input !== input) { close(); open = { input, box: input.closest(".adder").querySelector(".choices") }; }
  const mine = open;
  clearTimeout(mine.timer);
  await new Promise((done) => { mine.timer = setTimeout(done, delay); });
  if (open !== mine) return;
  const runner = input.closest(".adder").dataset.runner;
  let html;
  try {
    const response = await fetch(`${base}/choices?${new URLSearchParams({ runner, q: input.value })}`,
      { headers: { "X-Requested-With": "console" }, signal: AbortSignal.timeout(5000) });
    html = response.ok ? await response.text() : "";
  } catch { html = ""; }
  if (open !== mine) return;
  mine.box.innerHTML = html || '<p class="muted">The server does not answer. Try again.</p>';
  mine.box.hidden = false;
  input.setAttribute("aria-expanded", "true");
  input.removeAttribute("aria-activedescendant");
  if (options().length) point(options()[0]);
}

function point(option) {
  active()?.classList.remove("active");
  option.classList.add("active");
  option.scrollIntoView({ block: "nearest" });
  open.input.setAttribute("aria-activedescendant", option.id);
}

const marked = () => options().filter((option) => option.getAttribute("aria-selected") === "true");

function mark(option) {
  option.setAttribute("aria-selected", option.getAttribute("aria-selected") === "true" ? "false" : "true");
  point(option);
}

function take(option, choose) {
  const chosen = marked().length ? marked() : [option];
  const { input } = open, sources = chosen.map((each) => each.dataset.source);
  close();
  input.value = "";
  choose(input.closest(".adder").dataset.runner, sources);
}

function close() {
  if (!open) return;
  clearTimeout(open.timer);
  open.box.hidden = true;
  open.box.replaceChildren();
  open.input.setAttribute("aria-expanded", "false");
  open.input.removeAttribute("aria-activedescendant");
  open = null;
}
