// Small charts, drawn as SVG. Each says in words what it shows.

const SVG = "http://www.w3.org/2000/svg";

export function svg(name, properties = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(properties)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// Bars of the same width, the newest at the right. `words` describes them.
export function bars(values, tone, words) {
  const [width, height] = [values.length * 10, 48];
  const most = Math.max(1, ...values);
  const drawn = values.map((value, at) => {
    const tall = value === 0 ? 0 : Math.max(2, Math.round((value / most) * (height - 4)));
    return svg("rect", { x: at * 10 + 1, y: height - tall, width: 8, height: tall, rx: 1 });
  });
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, class: `chart ${tone}`, role: "img", "aria-label": words, preserveAspectRatio: "none" },
    svg("line", { x1: 0, x2: width, y1: height, y2: height }), ...drawn);
}

// A line over time. `points`: [[time, 0 to 100], …].
export function curve(points, words) {
  const [width, height] = [600, 120];
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "chart curve", role: "img", "aria-label": words, preserveAspectRatio: "none" });
  for (const y of [0, 0.5, 1]) node.append(svg("line", { x1: 0, x2: width, y1: 2 + y * (height - 4), y2: 2 + y * (height - 4) }));
  if (points.length < 2) return node;
  const [first, last] = [points[0][0], points.at(-1)[0]];
  const place = ([time, value]) => `${(((time - first) / Math.max(1, last - first)) * width).toFixed(1)},${(2 + (1 - value / 100) * (height - 4)).toFixed(1)}`;
  const line = points.map(place).join(" ");
  node.append(svg("polygon", { points: `0,${height - 2} ${line} ${width},${height - 2}` }), svg("polyline", { points: line }));
  return node;
}
