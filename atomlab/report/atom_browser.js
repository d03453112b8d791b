"use strict";
// The left pane: the list of atoms, sorted, searched, a page at a time; and which atom the right pane shows.
(() => {
  const source = document.getElementById("atom-data");
  if (!source) return;
  const data = JSON.parse(source.textContent), columns = data.columns, count = columns[0].values.length, size = 50;
  const at = id => document.getElementById(id), { find, span } = atomSearch(data), detail = atomDetail(data, span);
  const telling = columns.findIndex(column => column.key === "telling"), inList = ["atom", "telling", "rate"].map(key => columns.findIndex(column => column.key === key)).filter(index => index >= 0);
  const first = telling >= 0 ? telling : 0, byMatch = -1;
  let shown = [...Array(count).keys()], scores = null, page = 0, sortedBy = first, down = first > 0, chosen = null;

  const sort = () => {
    const sign = down ? -1 : 1, tells = columns[first].values;
    if (sortedBy === byMatch && !scores) [sortedBy, down] = [first, first > 0];
    const values = sortedBy === byMatch ? scores : columns[sortedBy].values;
    shown.sort((a, b) => (values[a] === null) - (values[b] === null) || sign * (values[a] - values[b])
      || (sortedBy === byMatch ? (tells[b] ?? -1) - (tells[a] ?? -1) : 0) || a - b);
    page = 0;
    draw();
  };
  const search = () => {
    ({ found: shown, scores } = find(at("atom-search").value));
    if (scores) [sortedBy, down] = [byMatch, true];
    sort();
  };

  const draw = () => {
    const last = Math.max(0, Math.ceil(shown.length / size) - 1);
    page = Math.min(Math.max(page, 0), last);
    at("atom-rows").replaceChildren(...shown.slice(page * size, (page + 1) * size).map(atom => {
      const row = node("tr"), picture = node("td"), fires = node("td", undefined, "fires"), top = data.contexts[atom][0];
      row.dataset.atom = atom;
      row.setAttribute("aria-selected", atom === chosen);
      picture.append(sparkline(data.histograms[atom], 60, 18));
      fires.textContent = top ? wordAt(data, span, top[1]) : "never fires";
      row.append(...inList.map(index => node("td", shownNumber(columns[index].values[atom]))), picture, fires);
      return row;
    }));
    at("atom-count").textContent = `${shown.length} of ${count} atoms, page ${page + 1} of ${last + 1}`;
    at("atom-sort").value = String(sortedBy);
    document.querySelectorAll("#atom-head th").forEach((head, place) =>
      head.setAttribute("aria-sort", inList[place] === sortedBy ? (down ? "descending" : "ascending") : "none"));
  };

  const select = atom => {
    chosen = atom;
    at("atom-detail").replaceChildren(...detail(atom));
    at("atom-detail").scrollTop = 0;
    document.querySelectorAll("#atom-rows tr").forEach(row => row.setAttribute("aria-selected", +row.dataset.atom === atom));
    const row = document.querySelector("#atom-rows tr[aria-selected=true]"), pane = at("atom-table");  // the page itself stays where it is
    if (row && row.offsetTop < pane.scrollTop + row.offsetHeight) pane.scrollTop = row.offsetTop - 2 * row.offsetHeight;
    else if (row && row.offsetTop + row.offsetHeight > pane.scrollTop + pane.clientHeight) pane.scrollTop = row.offsetTop - pane.clientHeight + 2 * row.offsetHeight;
  };
  const follow = scroll => {
    const found = /^#atom-(\d+)$/.exec(location.hash);
    if (!found || +found[1] >= count) return false;
    select(+found[1]);
    if (scroll) at("atoms").scrollIntoView();
    return true;
  };
  const go = atom => {
    history.replaceState(null, "", `#atom-${atom}`);
    select(atom);
  };
  const step = by => {
    const here = shown.indexOf(chosen), next = here < 0 ? page * size : Math.min(Math.max(here + by, 0), shown.length - 1);
    if (!shown.length) return;
    if (Math.floor(next / size) !== page) {
      page = Math.floor(next / size);
      draw();
    }
    go(shown[next]);
  };
  const sortBy = index => {
    down = index === sortedBy ? !down : index !== 0;
    sortedBy = index;
    sort();
  };

  inList.forEach(index => {
    const head = node("th"), button = node("button", columns[index].header);
    button.type = "button";
    head.title = columns[index].definition;
    button.addEventListener("click", () => sortBy(index));
    head.append(button);
    at("atom-head").append(head);
  });
  at("atom-head").append(node("th", "values"), node("th", "fires on", "fires"));
  [["-1", "match with the search"], ...columns.map((column, index) => [String(index), column.header])].forEach(([value, text]) => {
    const option = node("option", text);
    option.value = value;
    at("atom-sort").append(option);
  });
  columns.forEach(column => at("atom-definitions").append(node("dt", column.header), node("dd", `${column.definition} Search: ${column.key} > …`)));
  at("atom-sort").addEventListener("change", event => { sortedBy = NaN; sortBy(+event.target.value); });
  at("atom-search").addEventListener("input", search);
  at("atom-search").addEventListener("keydown", event => { if (event.key === "Enter" && shown.length) go(shown[0]); });
  at("atom-back").addEventListener("click", () => { page -= 1; draw(); });
  at("atom-on").addEventListener("click", () => { page += 1; draw(); });
  at("atom-rows").addEventListener("click", event => {
    const row = event.target.closest("tr");
    if (row) go(+row.dataset.atom);
  });
  at("atom-rows").addEventListener("keydown", event => {
    const by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: size, PageUp: -size }[event.key];
    if (!by) return;
    event.preventDefault();
    step(by);
  });
  document.addEventListener("keydown", event => {
    if (event.key !== "/" || /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement?.tagName ?? "")) return;
    event.preventDefault();
    at("atom-search").focus();
  });
  window.addEventListener("hashchange", () => follow(false));
  sort();
  if (!follow(true)) select(shown[0]);
})();
