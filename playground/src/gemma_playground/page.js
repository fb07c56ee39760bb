// Conversations live in this browser's local storage, newest first; which one is open, in the tab's.
window.playground = {
  key: "gemma-playground",
  all() {
    try {
      const all = JSON.parse(localStorage.getItem(this.key));
      return Array.isArray(all) ? all.filter((each) => each?.id && each.messages?.length) : [];
    } catch { return []; }
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
  listed() { return this.all().map(({ id, title }) => [String(title), String(id)]); },
  start() {
    const id = sessionStorage.getItem(this.key);
    return [{ wide: innerWidth > 1000, query: location.search, open: this.find(id), titles: this.listed() }];
  },
  find(id) { return this.all().find((each) => each.id === id) ?? null; },
  open(id) { sessionStorage.setItem(this.key, id); return this.find(id); },
  save(kept) {
    const rest = this.all().filter(({ id }) => id !== kept.id);
    if (kept.messages.length) sessionStorage.setItem(this.key, kept.id);
    this.write(kept.messages.length ? [kept, ...rest] : rest);
    return this.listed();
  },
  forget(stored) {
    const id = sessionStorage.getItem(this.key);
    sessionStorage.removeItem(this.key);
    if (stored) this.write(this.all().filter((each) => each.id !== id));
    return this.listed();
  },
  download(kept) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(kept, null, 2)], { type: "application/json" }));
    link.download = "conversation.json";
    link.click();
  },
  share({ query }) {
    history.replaceState(null, "", location.pathname + query);
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
