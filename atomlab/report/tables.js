"use strict";
// Tables of units: sorting by a column, and a menu of columns, of which as many are shown at first as the window holds.
document.querySelectorAll("table.units").forEach(table => {
  const heads = [...table.tHead.rows[0].cells];
  table.querySelectorAll("th button").forEach((button, index) => button.addEventListener("click", () => {
    const body = table.tBodies[0], down = button.dataset.down = button.dataset.down === "1" ? "0" : "1";
    const sign = down === "1" ? -1 : 1, rows = [...body.rows];
    const texts = new Map(rows.map(row => [row, row.cells[index].textContent.trim()]));
    const number = text => parseFloat(text.replace("[", "").replaceAll(",", "").replace("inf", "Infinity"));
    const numeric = [...texts.values()].every(text => text === "–" || !isNaN(number(text)));
    const compare = numeric ? (a, b) => number(a) - number(b) || 0 : (a, b) => (a > b) - (a < b);
    rows.sort((one, other) => {
      const [a, b] = [texts.get(one), texts.get(other)];
      return (a === "–") - (b === "–") || (a === "–" ? 0 : sign * compare(a, b));
    });
    body.append(...rows);
    heads.forEach((head, other) => head.setAttribute("aria-sort", other !== index ? "none" : down === "1" ? "descending" : "ascending"));
  }));

  const show = (index, shown) => [...table.rows].forEach(row => { row.cells[index].hidden = !shown; });
  const holder = table.parentElement, menu = document.createElement("details"), title = document.createElement("summary");
  menu.className = "columns";
  menu.append(title);
  const boxes = heads.map((head, index) => {
    const label = document.createElement("label"), box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    box.disabled = index === 0;
    box.addEventListener("change", () => { show(index, box.checked); say(); });
    label.append(box, " ", head.textContent);
    label.title = head.title;
    menu.append(label);
    return box;
  });
  const say = () => { title.textContent = `Columns (${boxes.filter(box => box.checked).length} of ${boxes.length} are shown)`; };
  for (let index = heads.length - 1; index > 1 && holder.scrollWidth > holder.clientWidth; index--) {
    show(index, false);
    boxes[index].checked = false;
  }
  say();
  holder.before(menu);
});
