// What a page does by itself: it shows where one is among the links, which a phone has no room for, and renews its
// live parts: by its stream of events, else by asking for the page itself.
"use strict";

{
  const here = document.querySelector("nav [aria-current]");
  const links = here?.parentElement;
  if (links) links.scrollLeft = here.offsetLeft - links.offsetLeft - (links.clientWidth - here.offsetWidth) / 2;
}

(() => {
  const POLL_MS = 5000;
  const RETRY_MS = 15000;

  const sign = document.querySelector("[data-live-stream]");
  if (!sign) return;
  const parts = new Map([...document.querySelectorAll("[data-live]")].map((part) => [part.dataset.live, part]));
  let stream;
  let polling;
  let retrying;

  const say = (text) => {
    if (sign.textContent !== text) sign.textContent = text;
  };

  /** Where a link or button leads; by that it is known again. */
  const leadsTo = (element) => element?.getAttribute("href") ?? element?.closest("form")?.getAttribute("action");

  /** Puts new content into a part; who was at a link or button of it stays there. */
  const renew = (part, content) => {
    const [links, places] = ["a, button", "[tabindex]"].map((selector) => (root) => [...root.querySelectorAll(selector)]);
    const at = document.activeElement;
    const address = leadsTo(at);
    const alike = (root) => links(root).filter((link) => leadsTo(link) === address);
    const nth = alike(part).indexOf(at);
    const place = places(part).indexOf(at);
    const scrolled = places(part).map((element) => element.scrollLeft);
    const holds = part.contains(at);
    part.innerHTML = content;
    globalThis.htmx?.process(part);
    places(part).forEach((element, index) => {
      element.scrollLeft = scrolled[index] ?? 0;
    });
    if (!holds) return;
    const again = address ? (alike(part)[nth] ?? alike(part).at(-1)) : places(part)[place];
    again?.focus({ preventScroll: true });
  };

  const poll = async () => {
    try {
      const answer = await fetch(location.href, { headers: { "muster-live": "poll" }, redirect: "error" });
      if (answer.headers.has("hx-redirect")) return leave();
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      for (const [name, part] of parts) {
        const found = fresh.querySelector(`[data-live="${name}"]`);
        if (found && found.innerHTML !== part.innerHTML) renew(part, found.innerHTML);
      }
      say("Renewed every 5 seconds");
    } catch {
      say("Not connected; trying again");
    }
  };

  const leave = () => {
    stop();
    location.assign("/login");
  };

  const stop = () => {
    stream?.close();
    clearInterval(polling);
    clearTimeout(retrying);
    stream = polling = retrying = undefined;
  };

  const fallBack = () => {
    stop();
    say("Not connected; trying again");
    poll();
    polling = setInterval(poll, POLL_MS);
    retrying = setTimeout(start, RETRY_MS);
  };

  const start = () => {
    stop();
    stream = new EventSource(sign.dataset.liveStream);
    stream.onopen = () => say("Live");
    stream.onerror = fallBack;
    stream.addEventListener("busy", fallBack);
    stream.addEventListener("over", leave);
    for (const [name, part] of parts) {
      stream.addEventListener(name, (event) => renew(part, event.data));
    }
  };

  // A page that nobody sees holds no connection; one that comes back from the cache follows again.
  const follow = () => (document.visibilityState === "visible" ? start() : stop());
  document.addEventListener("visibilitychange", follow);
  addEventListener("pagehide", stop);
  addEventListener("pageshow", follow);
})();
