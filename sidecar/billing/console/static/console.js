// Keeps a page true while it is open: when the ledger changed, the page is asked for again and what differs is replaced.
// Everything works without this script; it submits nothing by itself but the choice of a month.
(() => {
  "use strict";
  for (const field of document.querySelectorAll("[data-submits]")) {
    field.addEventListener("change", () => field.value && field.form.requestSubmit());
  }
  for (const button of document.querySelectorAll("[data-prints]")) {
    button.addEventListener("click", () => window.print());
  }

  const region = document.querySelector("[data-live]");
  const banner = document.querySelector("[data-offline]");
  if (!region || !window.EventSource) return;

  let asOf = new Date(), asking = false, again = false, source = null;
  const say = (text) => { if (banner.textContent !== text) banner.textContent = text; };
  const lost = () => say(`Not connected. What you see is as of ${asOf.toISOString().slice(11, 19)} UTC.`);
  const typed = (field) => field.matches("input[type=checkbox], input[type=radio]") ? field.checked !== field.defaultChecked
    : field.matches("select") ? [...field.options].some((one) => one.selected !== one.defaultSelected)
    : field.value !== field.defaultValue;
  const fields = () => [...region.querySelectorAll("input:not([type=hidden]), textarea, select")];
  // Somebody who writes or reads a dialog is not to be disturbed.
  const busy = () => document.hidden || region.querySelector("dialog[open]") || fields().includes(document.activeElement);
  // What somebody opened stays open, what they wrote or chose stays, too.
  const callbacks = {
    beforeNodeMorphed: (node) => !(node.matches?.("input:not([type=hidden]), textarea, select") && typed(node)),
    beforeAttributeUpdated: (name, node) => !(name === "open" && node.matches("details")),
  };

  // Whether the page could be asked for; false as well when it has to wait.
  async function refresh() {
    if (busy() || asking) { again = true; return false; }
    asking = true; again = false;
    try {
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (answer.status === 401) { over(); return true; }
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const found = fresh.querySelector("[data-live]");
      if (busy()) { again = true; return true; }
      if (found) Idiomorph.morph(region, found, { callbacks });
      document.body.dataset.seen = fresh.body.dataset.seen;
      asOf = new Date();
      say("");
      return true;
    } catch { lost(); return false; }
    finally { asking = false; if (again) setTimeout(refresh, 1000); }
  }

  // The page asks to log in, and comes back; but not over what somebody has written.
  function over() {
    if (fields().some(typed)) say("Your session is over. Log in again in another tab: what you wrote stays here.");
    else location.reload();
  }

  // A browser has six connections to a server: a page that nobody sees gives its own back.
  function listen() {
    if (source || document.hidden) return;
    source = new EventSource(`/live?seen=${encodeURIComponent(document.body.dataset.seen)}`);
    let broken = false;
    source.addEventListener("changed", refresh);
    source.addEventListener("open", () => { if (broken) refresh(); broken = false; });
    source.addEventListener("error", async () => {
      broken = true;
      lost();
      if (source?.readyState !== EventSource.CLOSED) return;  // else the browser tries again by itself
      source = null;
      setTimeout(listen, await refresh() ? 30000 : 5000);
    });
  }
  const rest = () => { source?.close(); source = null; };
  document.addEventListener("visibilitychange", () => document.hidden ? rest() : listen());
  window.addEventListener("pagehide", rest);
  for (const occasion of ["visibilitychange", "focusout", "close"]) {
    document.addEventListener(occasion, () => setTimeout(() => again && !busy() && refresh(), 0), true);
  }
  // Work that goes on in the background tells of itself more often than the ledger changes.
  setInterval(() => region.querySelector("[data-refreshes]") && refresh(), 1500);
  listen();
})();
