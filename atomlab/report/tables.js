"use strict";
document.querySelectorAll("table.units").forEach(table => table.querySelectorAll("th button").forEach((button, index) =>
  button.addEventListener("click", () => {
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
  })));
