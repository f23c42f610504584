// Language switch, search and filters. Without scripts everything is there and readable; only these are missing.
"use strict";
(() => {
  const page = document.documentElement;
  const asked = new URLSearchParams(location.search);
  const languages = ["zh", "en"];

  const remembered = () => {
    try { return localStorage.getItem("catalogue-language"); } catch { return null; }
  };
  const remember = (language) => {
    try { localStorage.setItem("catalogue-language", language); } catch { /* private windows have no storage */ }
  };

  const speak = (language) => {
    page.dataset.lang = language;
    page.lang = language === "zh" ? "zh-CN" : "en";
    for (const button of document.querySelectorAll("[data-set-lang]")) {
      button.setAttribute("aria-pressed", String(button.dataset.setLang === language));
    }
    for (const option of document.querySelectorAll("option[data-zh]")) option.textContent = option.dataset[language];
    for (const input of document.querySelectorAll("input[data-zh]")) input.placeholder = input.dataset[language];
    // Links carry the language, since files opened from a disk need not share what they remember.
    for (const link of document.querySelectorAll('a[href*=".html"]')) {
      const href = link.getAttribute("href");
      link.setAttribute("href", `${href.split("?")[0]}?lang=${language}`);
    }
  };
  const address = (changes) => {
    const query = new URLSearchParams(location.search);
    for (const [name, value] of Object.entries(changes)) {
      if (value) query.set(name, value); else query.delete(name);
    }
    try { history.replaceState(null, "", `${location.pathname}?${query}`); } catch { /* not allowed for files everywhere */ }
  };

  const first = [asked.get("lang"), remembered(), page.dataset.lang].find((one) => languages.includes(one));
  speak(first);
  for (const button of document.querySelectorAll("[data-set-lang]")) {
    button.addEventListener("click", () => {
      remember(button.dataset.setLang);
      speak(button.dataset.setLang);
      address({ lang: button.dataset.setLang });
    });
  }

  const form = document.querySelector("[data-filters]");
  if (!form) return;
  const fold = (text) => text.normalize("NFKC").toLowerCase();
  const entries = [...document.querySelectorAll("[data-entry]")].map((row) => ({
    row, text: fold(row.dataset.text), name: fold(row.dataset.name),
  }));
  const list = document.querySelector(".entries");
  const fields = [...form.querySelectorAll("select")].map((select) => select.name);
  const search = form.elements.q;

  const filter = () => {
    const words = fold(search.value).split(/\s+/).filter(Boolean);
    let count = 0;
    // What has the words in its name comes before what has them in its definition.
    const isNamed = ({ name }) => words.every((word) => name.includes(word));
    list.append(...[...entries.filter(isNamed), ...entries.filter((entry) => !isNamed(entry))].map(({ row }) => row));
    for (const { row, text } of entries) {
      const matches = words.every((word) => text.includes(word))
        && fields.every((name) => !form.elements[name].value || row.dataset[name] === form.elements[name].value);
      row.hidden = !matches;
      count += matches;
    }
    document.querySelector("[data-count]").textContent = String(count);
    document.querySelector("[data-none]").hidden = count > 0;
    form.querySelector("[data-clear]").hidden = !search.value && fields.every((name) => !form.elements[name].value);
  };
  const changed = () => {
    filter();
    address(Object.fromEntries(["q", ...fields].map((name) => [name, form.elements[name].value])));
  };

  search.value = asked.get("q") ?? "";
  for (const name of fields) form.elements[name].value = asked.get(name) ?? "";
  for (const name of fields) if (form.elements[name].selectedIndex < 0) form.elements[name].value = "";
  filter();
  form.addEventListener("input", changed);
  form.addEventListener("reset", () => setTimeout(changed));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    document.querySelector("[data-entry]:not([hidden]) a")?.click();
  });
  document.addEventListener("keydown", (event) => {
    const writing = event.target instanceof HTMLElement && event.target.matches("input, select, textarea");
    if (event.key === "/" && !writing) {
      event.preventDefault();
      search.focus();
    }
  });
})();
