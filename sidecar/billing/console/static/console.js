// Keeps a page true while it is open: when the ledger changed, the page is asked for again and what differs is replaced.
// Everything works without this script; it submits nothing by itself but the choice of a month.
(() => {
  "use strict";
  document.documentElement.classList.add("scripted");
  for (const field of document.querySelectorAll("[data-submits]")) {
    field.addEventListener("change", () => field.value && field.form.requestSubmit());
  }
  for (const button of document.querySelectorAll("[data-prints]")) {
    button.addEventListener("click", () => window.print());
  }

  const region = document.querySelector("[data-live]");
  const offline = document.querySelector("[data-offline]");
  if (!region || !window.EventSource) return;

  let asOf = new Date(), asking = false, again = false;
  const clock = (moment) => moment.toISOString().slice(11, 19);
  const say = (text) => { offline.textContent = text; offline.hidden = !text; };
  const lost = () => say(`Not connected. What you see is as of ${clock(asOf)} UTC.`);
  // Somebody who writes or reads a dialog is not to be disturbed.
  const busy = () => document.hidden || region.querySelector("dialog[open]") ||
    (region.contains(document.activeElement) && document.activeElement.matches("input, textarea, select"));

  async function refresh() {
    if (busy()) { again = true; return; }
    if (asking) { again = true; return; }
    asking = true; again = false;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (answer.status === 401) { location.reload(); return; }
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("[data-live]");
      if (fresh) Idiomorph.morph(region, fresh, { callbacks: { beforeAttributeUpdated: (name, node) =>
        !(name === "open" && node.matches("details")) } });
      asOf = new Date();
      say("");
    } catch { lost(); }
    finally { asking = false; }
    if (again) setTimeout(refresh, 1000);
  }

  // Work that goes on in the background tells of itself more often than the ledger changes.
  setInterval(() => region.querySelector("[data-refreshes]") && refresh(), 1500);

  const source = new EventSource("/live");
  let broken = false;
  source.addEventListener("changed", refresh);
  source.addEventListener("open", () => { if (broken) { broken = false; refresh(); } });
  source.addEventListener("error", () => { broken = true; lost(); });
  for (const occasion of ["visibilitychange", "focusout", "close"]) {
    document.addEventListener(occasion, () => setTimeout(() => again && !busy() && refresh(), 0), true);
  }
})();
