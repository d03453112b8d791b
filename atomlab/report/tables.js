"use strict";
document.querySelectorAll("table.units").forEach(table => table.querySelectorAll("th button").forEach((button, index) =>
  button.addEventListener("click", () => {
    const body = table.tBodies[0], down = button.dataset.down = button.dataset.down === "1" ? "0" : "1";
    const key = row => {
      const text = row.cells[index].textContent, number = parseFloat(text.replace("[", ""));
      return isNaN(number) ? text : number;
    };
    [...body.rows].sort((a, b) => (key(a) > key(b) ? 1 : -1) * (down === "1" ? -1 : 1)).forEach(row => body.append(row));
  })));
