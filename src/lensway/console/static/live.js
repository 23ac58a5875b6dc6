// Keeps the rows true, and says how old they are.
//
// A page is live only while the server has confirmed, less than five seconds ago, that the version on show is the newest one: by
// a beat of the stream, or by an answer to a request for the rows. Everything else is stale, whatever the reason.

const STALE_MS = 5000;    // two beats of two seconds, and one for their way
const QUIET_MS = 3500;    // without a beat for so long, ask; covers proxies that buffer
const POLL_MS = 2000;     // for a page without a stream of its own
const TIMEOUT_MS = 4000;
const SLOTS = 3;          // streams of one browser; HTTP/1.1 has six connections for all its pages

export class Live {
  constructor(settings, rows, changed) {
    Object.assign(this, { ...settings, rows, changed });
    this.state = "starting";
    this.notice = this.reason = "";
    this.confirmedAt = performance.getEntriesByType("navigation")[0]?.requestStart ?? 0;
    this.heardAt = this.askedAt = this.wallAt = this.confirmedAt;
    this.isAsking = this.isAgain = this.hasStream = false;
    this.source = null;
    this.releaseSlot = null;
  }

  start() {
    document.addEventListener("visibilitychange", () => this.wake());
    addEventListener("pageshow", (event) => { if (event.persisted) this.wake(); });
    addEventListener("online", () => this.refresh());
    addEventListener("pagehide", () => this.disconnect());
    setInterval(() => this.tick(), 250);
    this.wake();
  }

  get isFresh() { return this.state === "live"; }
  /** The server's own time of day: the clock of this machine may be off. */
  get wallNow() { return this.wall + performance.now() - this.wallAt; }
  get age() { return performance.now() - this.confirmedAt; }

  /** Show another part of the list; resolves once it is there. */
  async view(query) {
    this.query = query;
    this.version = "";
    this.disconnect();
    await this.refresh();
    this.connect();
  }

  /** Fetch the rows now, or once more after the fetch under way. */
  async refresh() {
    if (this.isAsking) { this.isAgain = true; return this.asking; }
    this.isAsking = true;
    this.asking = this.ask();
    try { await this.asking; } finally { this.isAsking = false; }
    if (this.isAgain) { this.isAgain = false; await this.refresh(); }
  }

  async ask() {
    const at = this.askedAt = performance.now();
    const query = this.query;
    const headers = { "X-Requested-With": "console", "X-Form-Token": this.token };
    if (this.version) headers["If-None-Match"] = `"${this.version}"`;
    try {
      const response = await fetch(`${this.path}/rows${query ? "?" + query : ""}`,
        { headers, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (response.status === 401) return this.end("signed-out");
      if (response.status === 404) return this.end("gone");
      if (response.status === 409) return this.end("replaced");
      const html = await response.text();
      if (query !== this.query) { this.isAgain = true; return; }
      if (response.status === 200) {
        this.show(html, response.headers.get("X-Lensway-Version"));
      } else if (response.status !== 304) {
        return this.lose(`The server answers with an error (${response.status}).`);
      }
      this.confirm(at);
    } catch (error) {
      this.lose(error.name === "TimeoutError" ? "" : "The server cannot be reached.");
    }
  }

  show(html, version) {
    const focused = document.activeElement, row = focused?.closest?.("[data-runner], [data-row]")?.id;
    // What was chosen or typed belongs to the person, in the field that has the focus and in every other.
    const fields = [...this.rows.querySelectorAll("select[id], input[id]")].map(({ id, value, checked }) => ({ id, value, checked }));
    Idiomorph.morph(this.rows, html, {
      morphStyle: "innerHTML",
      ignoreActiveValue: true,
      callbacks: {
        // Results of tests, tests under way and the field being typed into belong to this page, not to the server.
        beforeNodeMorphed: (old) => !(old.nodeType === 1 && (
          (old.hasAttribute("data-keep") && old.childElementCount > 0) || old.hasAttribute("data-busy") ||
          (old.classList.contains("adder") && old.contains(document.activeElement)))),
        beforeAttributeUpdated: (name, node) => !(name === "open" && node.tagName === "DETAILS"),
      },
    });
    for (const { id, value, checked } of fields) {
      const field = document.getElementById(id);
      if (!field) continue;
      if (field.type === "checkbox") field.checked = checked;
      else if (field.value !== value && (field.tagName !== "SELECT" || [...field.options].some((each) => each.value === value))) field.value = value;
    }
    this.version = version;
    if (focused && focused !== document.body && !focused.isConnected) {
      // To the next control of its row; to the list when the row is gone too.
      ((row && document.getElementById(row)?.querySelector("input, button, a")) || this.rows).focus();
    }
    this.changed();
  }

  confirm(at) {
    this.confirmedAt = Math.max(this.confirmedAt, at);
    this.reason = "";
    this.settle();
  }

  /** A request failed: with a reason not live from this moment on, without one (no answer yet) as soon as the rows are old. */
  lose(reason) {
    this.reason = reason;
    this.settle();
  }

  /** There is nothing to wait for: signed out, another session in this browser, or the environment is gone. */
  end(state) {
    this.disconnect();
    this.state = state;
    this.changed();
  }

  get hasEnded() { return ["signed-out", "gone", "replaced"].includes(this.state); }

  settle() {
    const hadEnded = this.hasEnded;
    const state = this.age < STALE_MS && !this.reason ? "live" : "stale";
    if (state !== this.state || this.reason !== this.notice) {
      this.state = state;
      this.notice = this.reason;
      this.changed();
    }
    if (hadEnded) this.connect();
  }

  tick() {
    if (!this.hasEnded) {
      this.settle();
      const now = performance.now(), quiet = this.hasStream ? QUIET_MS : POLL_MS;
      if (!document.hidden && !this.isAsking && now - Math.max(this.heardAt, this.askedAt) > quiet) this.refresh();
    }
    this.ticked?.();
  }

  wake() {
    if (document.hidden) { this.disconnect(); return; }
    this.refresh();
    if (!this.hasEnded) this.connect();
  }

  connect() {
    if (this.source || document.hidden || this.isConnecting) return;
    this.isConnecting = true;
    takeSlot((release) => {
      this.isConnecting = false;
      if (!release || this.source || document.hidden || this.hasEnded) { release?.(); return; }
      this.releaseSlot = release;
      this.open();
    });
  }

  open() {
    const source = this.source = new EventSource(`${this.path}/stream${this.query ? "?" + this.query : ""}`);
    let least = Infinity, boot = "";
    this.hasStream = true;
    source.addEventListener("beat", (event) => {
      const beat = JSON.parse(event.data), now = performance.now();
      if (beat.boot !== boot) { boot = beat.boot; least = Infinity; }
      // Clocks differ by a constant; what comes on top is the time that the beat was under way.
      const difference = now - beat.at;
      least = Math.min(least, difference);
      this.heardAt = now;
      this.problems = beat.problems;
      Object.assign(this, { wall: beat.wall, wallAt: now - (difference - least) });
      if (beat.version === this.version) this.confirm(now - (difference - least));
      else if (beat.version) this.refresh();
    });
    source.onerror = () => {
      if (source !== this.source) return;
      this.refresh();
      // A refused stream is not tried again by the browser. Another page, or this one later, may have more luck.
      if (source.readyState === EventSource.CLOSED) {
        this.disconnect();
        setTimeout(() => { if (!this.hasEnded) this.connect(); }, 5000);
      }
    };
  }

  disconnect() {
    this.source?.close();
    this.source = null;
    this.hasStream = false;
    this.releaseSlot?.();
    this.releaseSlot = null;
  }
}

/** Gives `use` a function that frees the slot, or null when all are taken. Without locks (plain http) every page has a stream. */
async function takeSlot(use) {
  if (!navigator.locks) { use(() => {}); return; }
  for (let slot = 0; slot < SLOTS; slot++) {
    const isTaken = await new Promise((resolve) => {
      navigator.locks.request(`lensway-stream-${slot}`, { ifAvailable: true }, (lock) => {
        resolve(!lock);
        return lock ? new Promise((release) => use(release)) : undefined;
      });
    });
    if (!isTaken) return;
  }
  use(null);
}
