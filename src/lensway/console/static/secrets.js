// A secret in a dialog leaves the page with the dialog, and Escape does not close it before it was stored.

const dialog = document.getElementById("dialog");

const forget = () => { if (dialog.querySelector("[data-secret]")) dialog.replaceChildren(); };
dialog.addEventListener("close", forget);
addEventListener("pagehide", forget);
dialog.addEventListener("cancel", (event) => { if (dialog.querySelector("[data-secret]")) event.preventDefault(); });
