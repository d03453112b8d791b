"use strict";
// Finds and ranks atoms. Words count most on the token that fires, then as part of its word, in the logits, in a context.
const atomSearch = data => {
  const columns = data.columns, count = columns[0].values.length, [before, after] = data.window;
  const lower = data.vocabulary.map(text => text.toLowerCase());
  const offsets = new Int32Array(data.tokens.length + 1);
  data.tokens.forEach((token, place) => { offsets[place + 1] = offsets[place] + lower[token].length; });
  let joined = null;  // the whole text in small letters, made at the first search
  const startOf = place => {  // start of the text that a place lies in, by halving
    let low = 0, high = data.starts.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (data.starts[middle] <= place) low = middle; else high = middle - 1;
    }
    return low;
  };
  const span = place => {
    const text = startOf(place), end = data.starts[text + 1] ?? data.tokens.length;
    return [Math.max(data.starts[text], place - before), Math.min(end, place + after + 1)];
  };
  const tokenAt = letter => {  // the token that a letter of the joined text belongs to, by halving
    let low = 0, high = data.tokens.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (offsets[middle] <= letter) low = middle; else high = middle - 1;
    }
    return low;
  };

  // Of each token 2 if the word is a whole word there, 1 if it is a part of one, else 0; and how many hits are before it.
  const hitsOf = word => {
    joined ??= data.tokens.map(token => lower[token]).join("");
    const hits = new Uint8Array(data.tokens.length), isLetter = letter => /[\p{L}\p{N}]/u.test(letter ?? "");
    for (let at = joined.indexOf(word); at >= 0; at = joined.indexOf(word, at + 1)) {
      const whole = !isLetter(joined[at - 1]) && !isLetter(joined[at + word.length]) ? 2 : 1;
      for (let token = tokenAt(at), last = tokenAt(at + word.length - 1); token <= last; token++) hits[token] = Math.max(hits[token], whole);
    }
    const sums = new Int32Array(hits.length + 1);
    hits.forEach((hit, place) => { sums[place + 1] = sums[place] + (hit > 0); });
    return { hits, sums };
  };

  const scoreOfWord = word => {
    const { hits, sums } = hitsOf(word), exact = lower.map(text => text.trim() === word);
    const named = /^#?\d+$/.test(word) ? parseInt(word.replace("#", ""), 10) : -1;
    return atom => {
      let score = atom === named ? 1000 : 0;
      const contexts = data.contexts[atom];
      contexts.forEach(([, place]) => {
        const [start, stop] = span(place);
        score += (hits[place] === 2 ? 4 : hits[place] === 1 ? 2 : sums[stop] > sums[start] ? 0.25 : 0) / contexts.length;
      });
      [...(data.raised[atom] ?? []), ...(data.lowered[atom] ?? [])].forEach(([token]) => {
        score += exact[token] ? 0.5 : lower[token].includes(word) ? 0.1 : 0;
      });
      return score;
    };
  };
  const compare = { "<": (a, b) => a < b, ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b, "=": (a, b) => a === b };

  // Returns the atoms that are found, and their scores; no scores where the search has no words.
  const find = text => {
    const holds = [];
    const words = text.toLowerCase().replace(/([a-z_]+)\s*(<=|>=|<|>|=)\s*(-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)(?=\s|$)/g, (all, key, sign, number) => {
      const column = columns.find(candidate => candidate.key === key);
      if (!column) return all;
      holds.push(atom => column.values[atom] !== null && compare[sign](column.values[atom], parseFloat(number)));
      return " ";
    }).split(/\s+/).filter(Boolean);
    const scores = words.map(scoreOfWord), total = new Float64Array(count), found = [];
    for (let atom = 0; atom < count; atom++) {
      if (!holds.every(condition => condition(atom))) continue;
      const own = scores.map(score => score(atom));
      if (own.some(score => score === 0)) continue;
      total[atom] = own.reduce((a, b) => a + b, 0);
      found.push(atom);
    }
    return { found, scores: words.length ? total : null };
  };
  return { find, span };
};
