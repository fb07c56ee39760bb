// Conversations live in this browser's local storage, newest first; which one is open, in the tab's.
window.playground = {
  key: "gemma-playground",
  all() {
    try { return JSON.parse(localStorage.getItem(this.key)).filter((each) => each?.id && each.messages?.length); }
    catch { return []; }
  },
  write(all) {
    // A full storage first loses old pictures and sounds, then old conversations.
    for (;;) {
      try { return localStorage.setItem(this.key, JSON.stringify(all)); } catch {
        const heavy = all.findLast((each) => JSON.stringify(each).includes("base64") && !each.light);
        if (heavy) this.lighten(heavy);
        else if (!all.pop()) return;
      }
    }
  },
  lighten(conversation) {
    conversation.light = true;
    const left = { type: "text", text: "[a file that the browser had no room to keep]" };
    for (const { content } of conversation.messages)
      if (Array.isArray(content)) content.forEach((part, at) => { if (part.type !== "text") content[at] = left; });
  },
  listed() {
    const choices = this.all().map(({ id, title }) => [String(title), String(id)]);
    return { __type__: "update", choices, value: sessionStorage.getItem(this.key) };
  },
  start() {
    const told = Object.fromEntries(new URLSearchParams(location.search));
    const [open, list] = this.open(sessionStorage.getItem(this.key));
    return [Object.keys(told).length ? { ...open, settings: told } : open, list];
  },
  open(id) {
    const found = this.all().find((each) => each.id === id);
    if (found) sessionStorage.setItem(this.key, id);
    return [found ?? { messages: [] }, this.listed()];
  },
  forget(stored) {
    const id = sessionStorage.getItem(this.key);
    sessionStorage.removeItem(this.key);
    if (stored) this.write(this.all().filter((each) => each.id !== id));
    return this.open(null);
  },
  async pick() {
    const input = Object.assign(document.createElement("input"), { type: "file", accept: ".json" });
    const picked = new Promise((done) => { input.onchange = () => done(input.files[0].text()); });
    input.click();
    try { return [{ ...JSON.parse(await picked), id: null }, this.listed()]; } catch { return [null, this.listed()]; }
  },
  save(kept) {
    const said = kept.messages.flatMap(({ content }) => content).map((part) => part?.text ?? part);
    const title = said.find((text) => typeof text === "string")?.slice(0, 60) || "Untitled";
    const rest = this.all().filter(({ id }) => id !== kept.id);
    if (kept.messages.length) sessionStorage.setItem(this.key, kept.id);
    this.write(kept.messages.length ? [{ title, ...kept }, ...rest] : rest);
  },
  download(kept) {
    const href = URL.createObjectURL(new Blob([JSON.stringify(kept, null, 2)], { type: "application/json" }));
    Object.assign(document.createElement("a"), { href, download: "conversation.json" }).click();
  },
  share({ settings }) {
    history.replaceState(null, "", `${location.pathname}?${new URLSearchParams(settings)}`);
    navigator.clipboard?.writeText(location.href).catch(() => {});
  },
};
// What Gradio leaves without a name, or with a role that does not fit, for those who hear the page.
const names = {
  ".message-box textarea": { "aria-label": "Message" },
  "button:has(> .image-frame)": { "aria-label": "Enlarge the picture" },
  ".examples[role=list]": { role: "group", "aria-label": "Examples" },
  ".message img:not([alt])": { alt: "" },
};
new MutationObserver(() => {
  for (const [parts, said] of Object.entries(names))
    for (const part of document.querySelectorAll(parts))
      for (const [name, value] of Object.entries(said))
        if (part.getAttribute(name) !== value) part.setAttribute(name, value);
}).observe(document, { childList: true, subtree: true });
