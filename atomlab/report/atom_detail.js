"use strict";
// The right pane: one atom with its histogram, contexts, logits and neighbours.
const KINDS = [[0, "Strongest contexts"], [4, "Upper quarter of its values"], [3, "Second quarter"], [2, "Third quarter"], [1, "Lower quarter"], [5, "At random"]];
const shownNumber = value => value === null ? "–" : Number.isInteger(value) ? String(value) : String(+value.toPrecision(4));
const node = (tag, text, className) => {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
};
const drawn = (tag, attributes, text) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  if (text !== undefined) made.textContent = text;
  return made;
};

// Bars of a histogram; on a square-root scale, since most values are small.
const sparkline = (counts, width, height) => {
  const picture = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `histogram: ${counts.join(" ")}` });
  const top = Math.sqrt(Math.max(1, ...counts)), step = width / counts.length;
  counts.forEach((number, bin) => {
    const tall = Math.sqrt(number) / top * height;
    if (number) picture.append(drawn("rect", { class: "bin", x: bin * step, y: height - tall, width: Math.max(1, step - 1), height: tall }));
  });
  return picture;
};

// The word that a token is a part of, within its context.
const wordAt = (data, span, place) => {
  const [start, stop] = span(place), text = at => data.vocabulary[data.tokens[at]];
  let first = place, last = place + 1;
  while (first > start && /^[\p{L}\p{N}]/u.test(text(first)) && /[\p{L}\p{N}]$/u.test(text(first - 1))) first -= 1;
  while (last < stop && /^[\p{L}\p{N}]/u.test(text(last)) && /[\p{L}\p{N}]$/u.test(text(last - 1))) last += 1;
  let word = "";
  for (let at = first; at < last; at++) word += text(at);
  return word.trim() || "␣";
};

const atomDetail = (data, span) => {
  const columnOf = key => data.columns.find(column => column.key === key);
  const firesOn = atom => data.contexts[atom].length ? wordAt(data, span, data.contexts[atom][0][1]) : null;

  const histogram = atom => {
    const largest = columnOf("max")?.values[atom] ?? 1, threshold = columnOf("threshold")?.values[atom] ?? null;
    const width = 320, height = 90, picture = drawn("svg", { width, height: height + 26, viewBox: `0 0 ${width} ${height + 26}` });
    picture.append(sparkline(data.histograms[atom], width, height), drawn("line", { class: "axis", x1: 0, x2: width, y1: height, y2: height }));
    if (threshold !== null && largest > 0) {
      const x = Math.min(width, threshold / largest * width);
      picture.append(drawn("line", { class: "mark", x1: x, x2: x, y1: 0, y2: height }), drawn("text", { x: Math.min(x + 3, width - 70), y: 10 }, `θ = ${shownNumber(threshold)}`));
    }
    picture.append(drawn("text", { x: 0, y: height + 13 }, "0"), drawn("text", { x: width, y: height + 13, "text-anchor": "end" }, shownNumber(largest)),
      drawn("text", { x: width / 2, y: height + 13, "text-anchor": "middle" }, "value (heights: square root of the count)"));
    return picture;
  };

  const context = (line, largest) => {
    const [, place, ...pairs] = line, [start, stop] = span(place), values = new Map();
    for (let i = 0; i < pairs.length; i += 2) values.set(place + pairs[i], pairs[i + 1]);
    const shown = node("p", undefined, "context");
    shown.append(node("b", shownNumber(values.get(place))));
    for (let at = start; at < stop; at++) {
      const text = data.vocabulary[data.tokens[at]], own = text.trimStart() || text, value = values.get(at) ?? 0, token = node("mark", own);
      token.title = shownNumber(value);
      if (value > 0) token.style.background = `rgba(var(--fire), ${(0.12 + 0.68 * Math.min(1, value / largest)).toFixed(2)})`;
      if (at === place) token.className = "own";
      shown.append(text.slice(0, text.length - own.length), token);
    }
    return shown;
  };

  const bars = (pairs, name, low) => {
    const box = node("div"), grid = node("div", undefined, "bars"), largest = Math.max(1e-9, ...pairs.map(pair => Math.abs(pair[1])));
    pairs.forEach(([label, value]) => {
      const bar = node("div", undefined, low ? "bar low" : "bar");
      bar.style.width = `${Math.abs(value) / largest * 100}%`;
      grid.append(label, bar, node("span", shownNumber(value)));
    });
    box.append(node("h3", name), grid);
    return box;
  };
  const link = (atom, text) => {
    const made = node("a", text);
    made.href = `#atom-${atom}`;
    return made;
  };

  const map = atom => {
    const size = 220, points = data.maps[atom], names = [atom, ...data.nearest[atom].map(pair => pair[0])];
    const reach = Math.max(1e-9, ...points.map(Math.abs)) * 1.25, put = number => size / 2 + number / reach * size / 2;
    const picture = drawn("svg", { width: size, height: size, viewBox: `0 0 ${size} ${size}`, role: "img", "aria-label": "map of the nearest atoms" });
    names.forEach((other, i) => {
      const [x, y] = [put(points[2 * i]), put(points[2 * i + 1])];
      if (i) picture.append(drawn("line", { class: "join", x1: put(points[0]), y1: put(points[1]), x2: x, y2: y }));
    });
    names.forEach((other, i) => {
      const anchor = drawn("a", { href: `#atom-${other}` }), [x, y] = [put(points[2 * i]), put(points[2 * i + 1])];
      anchor.append(drawn("circle", { cx: x, cy: y, r: i ? 4 : 6, class: i ? "" : "own" }), drawn("text", { x: x + 6, y: y - 4 }, `${other} ${firesOn(other) ?? ""}`.slice(0, 16)));
      picture.append(anchor);
    });
    return picture;
  };

  const seeds = atom => {
    const column = columnOf("seeds");
    if (!column || column.values[atom] === null) return [];
    const box = bars([[node("span", "mean cosine with its partner"), column.values[atom]]], "Stability over seeds", false);
    box.querySelector(".bar").style.width = `${Math.max(0, column.values[atom]) * 100}%`;
    box.append(node("p", "A full bar is 1; above 0.7 the atom counts as one that came back.", "beside"));
    return [box];
  };

  const copyButton = atom => {
    const button = node("button", "copy link", "copy");
    button.type = "button";
    button.addEventListener("click", async () => {
      const address = `${location.href.split("#")[0]}#atom-${atom}`;
      try {
        await navigator.clipboard.writeText(address);
        button.textContent = "copied";
      } catch {
        window.prompt("The link to this atom", address);
      }
    });
    return button;
  };

  return atom => {
    const heading = node("h3", `Atom ${atom}`), facts = node("dl"), largest = columnOf("max")?.values[atom] || 1;
    heading.append(" ", copyButton(atom));
    data.columns.forEach(column => {
      const fact = node("div");
      fact.title = column.definition;
      fact.append(node("dt", column.header), node("dd", shownNumber(column.values[atom])));
      facts.append(fact);
    });
    const parts = [heading, facts, histogram(atom)];
    if (!data.contexts[atom].length) parts.push(node("p", "It never fires on the text that was searched."));
    KINDS.forEach(([kind, name]) => {
      const mine = data.contexts[atom].filter(line => line[0] === kind);
      if (mine.length) parts.push(node("h3", name), ...mine.map(line => context(line, largest)));
    });
    const side = node("div", undefined, "side"), tokens = pairs => pairs.map(([token, value]) => [node("code", data.vocabulary[token]), value]);
    if (data.raised[atom]) side.append(bars(tokens(data.raised[atom]), "Raises the logits of", false));
    if (data.lowered[atom]) side.append(bars(tokens(data.lowered[atom]), "Lowers the logits of", true));
    side.append(bars(data.nearest[atom].map(([other, cosine]) => [link(other, `${other} ${firesOn(other) ?? ""}`), cosine]), "Nearest atoms, by cosine in S", false));
    const plane = node("div");
    plane.append(node("h3", "Map of the nearest atoms"), map(atom), node("p", `Principal components; the plane shows ${shownNumber(100 * (columnOf("plane")?.values[atom] ?? 0))}% of their variance.`, "beside"));
    side.append(plane, ...seeds(atom));
    return [...parts, side];
  };
};
