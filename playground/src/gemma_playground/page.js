// Conversations are kept in the browser's local storage, newest first. The tab's session storage has the id of the open one.
// The page's events call these functions; those that open something return values for its components.
window.playground = {
  key: "gemma-playground",
  read() {
    try { return JSON.parse(localStorage.getItem(this.key)).filter((each) => each?.id && each.messages?.length); }
    catch { return []; }
  },
  write(all) {
    // If the storage is full, the files of the oldest conversations are removed first, then the oldest conversations.
    for (;;) {
      try { return localStorage.setItem(this.key, JSON.stringify(all)); } catch {
        const oldest = all.findLast((each) => JSON.stringify(each).includes("base64") && !each.withoutFiles);
        if (oldest) this.removeFiles(oldest);
        else if (!all.pop()) return;
      }
    }
  },
  removeFiles(conversation) {
    conversation.withoutFiles = true;
    const note = { type: "text", text: "[a file that did not fit into the browser's storage]" };
    for (const { content } of conversation.messages)
      if (Array.isArray(content)) content.forEach((part, at) => { if (part.type !== "text") content[at] = note; });
  },
  list() {
    const choices = this.read().map(({ id, title }) => [String(title), String(id)]);
    return { __type__: "update", choices, value: sessionStorage.getItem(this.key) };
  },
  openPage() {
    const settings = Object.fromEntries(new URLSearchParams(location.search));
    const [conversation, list] = this.open(sessionStorage.getItem(this.key));
    return [Object.keys(settings).length ? { ...conversation, settings } : conversation, list];
  },
  open(id) {
    const found = this.read().find((each) => each.id === id);
    if (found) sessionStorage.setItem(this.key, id);
    return [found ?? { messages: [] }, this.list()];
  },
  newChat() {
    sessionStorage.removeItem(this.key);
    return this.open(null);
  },
  deleteChat() {
    const id = sessionStorage.getItem(this.key);
    this.write(this.read().filter((each) => each.id !== id));
    return this.newChat();
  },
  async importFile() {
    const input = Object.assign(document.createElement("input"), { type: "file", accept: ".json" });
    const text = new Promise((resolve) => { input.onchange = () => resolve(input.files[0].text()); });
    input.click();
    try { return [{ ...JSON.parse(await text), id: null }, this.list()]; } catch { return [null, this.list()]; }
  },
  save(kept) {
    const texts = kept.messages.flatMap(({ content }) => content).map((part) => part?.text ?? part);
    const title = texts.find((text) => typeof text === "string")?.slice(0, 60) || "Untitled";
    const others = this.read().filter(({ id }) => id !== kept.id);
    if (kept.messages.length) sessionStorage.setItem(this.key, kept.id);
    this.write(kept.messages.length ? [{ title, ...kept }, ...others] : others);
  },
  exportFile(kept) {
    const href = URL.createObjectURL(new Blob([JSON.stringify(kept, null, 2)], { type: "application/json" }));
    Object.assign(document.createElement("a"), { href, download: "conversation.json" }).click();
  },
  share({ settings }) {
    history.replaceState(null, "", `${location.pathname}?${new URLSearchParams(settings)}`);
    navigator.clipboard?.writeText(location.href).catch(() => {});
  },
};
// Accessible names and roles that Gradio omits or sets wrongly, by selector.
const attributes = {
  ".message-box textarea": { "aria-label": "Message" },
  "button:has(> .image-frame)": { "aria-label": "Enlarge the image" },
  ".examples[role=list]": { role: "group", "aria-label": "Examples" },
  ".message img:not([alt])": { alt: "" },
};
new MutationObserver(() => {
  for (const [selector, values] of Object.entries(attributes))
    for (const element of document.querySelectorAll(selector))
      for (const [name, value] of Object.entries(values))
        if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}).observe(document, { childList: true, subtree: true });
