// Rows of a lens: the form asks, the answer appears below it, with the same query as text.

import { post } from "/console/static/console.js";

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.dataset.rows) return;
  event.preventDefault();
  const answer = document.getElementById("answer"), button = form.querySelector("button");
  button.disabled = true;
  button.textContent = "Asking …";
  try {
    const { status, html } = await post(form.dataset.rows, Object.fromEntries(new FormData(form)), 40);
    if (status !== 401) answer.innerHTML = html;
  } catch {
    answer.innerHTML = '<div class="test failed" role="alert"><h3>The server did not answer within 40 s.</h3></div>';
  } finally {
    button.disabled = false;
    button.textContent = "Show rows";
  }
});
