import { expect, test } from "vitest";
import { stepPlot } from "../../bench/plot.ts";

const points = (...values: number[]) => values.map((value, seconds) => ({ seconds, value }));
const paths = (svg: string) => [...svg.matchAll(/<path d="([^"]+)"/g)].map(([, d]) => d);

test("a count is drawn in steps, and what does not change is not drawn", () => {
  const svg = stepPlot("counts", [{ name: "workers", color: "#000000", points: points(0, 0, 4, 4, 4, 0) }]);
  const [path = ""] = paths(svg);
  expect(path.match(/V/g)).toHaveLength(2);
  expect(path).not.toMatch(/L/);
});

test("an area comes down to zero at its end", () => {
  const area = { name: "sessions", color: "#000000", isArea: true, points: points(3, 2) };
  expect(paths(stepPlot("counts", [area]))[0]).toMatch(/Z$/);
});

test("every series is named, and counts end at a round number", () => {
  const svg = stepPlot("counts", [
    { name: "workers", color: "#000000", points: points(0, 187) },
    { name: "busy <now>", color: "#ffffff", points: points(0, 12) },
  ]);
  expect(svg).toContain(">workers</text>");
  expect(svg).toContain(">busy &lt;now&gt;</text>");
  expect(svg).toContain(">200</text>");
});

test("nothing measured is an empty plot, not one without axes", () => {
  const svg = stepPlot("counts", [{ name: "workers", color: "#000000", points: [] }]);
  expect(paths(svg)).toEqual([]);
  expect(svg).toContain(">1</text>");
  expect(svg).not.toMatch(/NaN|Infinity/);
});
