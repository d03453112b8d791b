"use strict";
(() => {
  const source = document.getElementById("atom-data");
  if (!source) return;
  const data = JSON.parse(source.textContent), columns = data.columns, count = columns[0].values.length, size = 50;
  const at = id => document.getElementById(id);
  const node = (tag, text, className) => {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };
  const shownNumber = value => value === null ? "–" : Number.isInteger(value) ? String(value) : String(+value.toPrecision(4));
  const words = ids => ids.map(id => data.vocabulary[id]);
  let shown = [...Array(count).keys()], page = 0, sortedBy = 0, down = false;

  // Search: words look in contexts and logit tokens; `rate>0.01` compares a column.
  const texts = [];
  const textOf = atom => texts[atom] ??= [
    atom, ...words(data.raised[atom] ?? []), ...words(data.lowered[atom] ?? []),
    ...data.contexts[atom].map(([, , ...ids]) => words(ids).join(""))].join("\n").toLowerCase();
  const compare = { "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b, "=": (a, b) => a === b };
  const condition = term => {
    const found = /^([a-z_]+)(<=|>=|<|>|=)(-?[\d.]+(?:e[+-]?\d+)?)$/.exec(term);
    const column = found && columns.find(candidate => candidate.key === found[1]);
    if (!column) return atom => textOf(atom).includes(term);
    return atom => column.values[atom] !== null && compare[found[2]](column.values[atom], parseFloat(found[3]));
  };
  const search = () => {
    const conditions = at("atom-search").value.toLowerCase().split(/\s+/).filter(Boolean).map(condition);
    shown = [...Array(count).keys()].filter(atom => conditions.every(holds => holds(atom)));
    sort();
  };
  const sort = () => {
    const values = columns[sortedBy].values, sign = down ? -1 : 1;
    shown.sort((a, b) => (values[a] === null) - (values[b] === null) || sign * (values[a] - values[b]) || a - b);
    page = 0;
    draw();
  };

  const draw = () => {
    const last = Math.max(0, Math.ceil(shown.length / size) - 1);
    page = Math.min(Math.max(page, 0), last);
    at("atom-rows").replaceChildren(...shown.slice(page * size, (page + 1) * size).map(atom => {
      const row = node("tr");
      row.dataset.atom = atom;
      row.append(...columns.map(column => node("td", shownNumber(column.values[atom]))));
      const first = data.contexts[atom][0];
      row.append(first ? context(first, true) : node("td", "never fires"));
      return row;
    }));
    at("atom-count").textContent = `${shown.length} of ${count} atoms, page ${page + 1} of ${last + 1}`;
    document.querySelectorAll("#atom-head th").forEach((head, index) =>
      head.setAttribute("aria-sort", index === sortedBy ? (down ? "descending" : "ascending") : "none"));
  };
  const context = ([value, place, ...ids], inTable) => {
    const line = node(inTable ? "td" : "p", undefined, "context"), tokens = words(ids);
    if (!inTable) line.append(node("b", shownNumber(value) + " "));
    line.append(tokens.slice(inTable ? Math.max(0, place - 8) : 0, place).join(""), node("mark", tokens[place]),
      tokens.slice(place + 1, inTable ? place + 4 : undefined).join(""));
    return line;
  };

  const select = atom => {
    const panel = at("atom-detail"), facts = node("dl");
    columns.forEach(column => {
      const fact = node("div");
      fact.append(node("dt", column.header), node("dd", shownNumber(column.values[atom])));
      facts.append(fact);
    });
    const nearest = node("p", "Nearest atoms: ");
    data.nearest[atom].forEach(([other, cosine]) => {
      const link = node("a", `${other} (${shownNumber(cosine)})`);
      link.href = `#atom-${other}`;
      nearest.append(link, " ");
    });
    const parts = [node("h3", `Atom ${atom}`), facts, nearest];
    [["Raises the logits of", data.raised[atom]], ["Lowers the logits of", data.lowered[atom]]].forEach(([name, ids]) => {
      if (!ids) return;
      const line = node("p", `${name}: `);
      words(ids).forEach(word => line.append(node("code", word), " "));
      parts.push(line);
    });
    panel.replaceChildren(...parts, ...data.contexts[atom].map(one => context(one, false)));
    panel.hidden = false;
  };
  const follow = () => {
    const found = /^#atom-(\d+)$/.exec(location.hash);
    if (found && +found[1] < count) {
      select(+found[1]);
      at("atom-detail").scrollIntoView({ block: "nearest" });
    }
  };

  columns.forEach((column, index) => {
    const head = node("th"), button = node("button", column.header);
    button.type = "button";
    head.title = `${column.definition} Search: ${column.key}>…`;
    button.addEventListener("click", () => {
      down = index === sortedBy ? !down : index > 0;
      sortedBy = index;
      sort();
    });
    head.append(button);
    at("atom-head").append(head);
    at("atom-definitions").append(node("dt", column.header), node("dd", head.title));
  });
  at("atom-head").append(node("th", "strongest context"));
  at("atom-search").addEventListener("input", search);
  at("atom-back").addEventListener("click", () => { page -= 1; draw(); });
  at("atom-on").addEventListener("click", () => { page += 1; draw(); });
  at("atom-rows").addEventListener("click", event => {
    const row = event.target.closest("tr");
    if (row) location.hash = `atom-${row.dataset.atom}`;
  });
  window.addEventListener("hashchange", follow);
  draw();
  follow();
})();
