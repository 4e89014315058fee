/** One line of a plot: values at times, both ascending by time. */
export interface Series {
  readonly name: string;
  readonly color: string;
  /** Filled down to zero instead of drawn as a line. */
  readonly isArea?: boolean;
  readonly points: readonly { readonly seconds: number; readonly value: number }[];
}

const WIDTH = 900;
const HEIGHT = 380;
const MARGIN = { left: 52, right: 16, top: 56, bottom: 44 };
const TICKS = 6;
const LEGEND_STEP = 230;

/** Counts over time as an SVG: steps, since a count stays as it is until it changes. */
export function stepPlot(title: string, series: readonly Series[]): string {
  const all = series.flatMap(({ points }) => points);
  const xTop = Math.max(1, ...all.map(({ seconds }) => seconds));
  const yTop = niceTop(Math.max(1, ...all.map(({ value }) => value)));
  const x = (seconds: number) => MARGIN.left + (seconds / xTop) * (WIDTH - MARGIN.left - MARGIN.right);
  const y = (value: number) => HEIGHT - MARGIN.bottom - (value / yTop) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="system-ui, sans-serif" font-size="12">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#ffffff"/>`,
    `<text x="${MARGIN.left}" y="20" font-size="14" fill="#1f2328">${escaped(title)}</text>`,
    ...series.map(({ name, color }, at) => legend(name, color, MARGIN.left + at * LEGEND_STEP)),
    ...ticks(yTop).map((value) => gridLine(value, y(value))),
    ...ticks(xTop).map((seconds) => label(x(seconds), HEIGHT - MARGIN.bottom + 18, `${seconds}`, "middle")),
    label(WIDTH / 2, HEIGHT - 8, "seconds", "middle"),
    ...series.map((each) => drawn(each, x, y)),
    "</svg>",
    "",
  ].join("\n");
}

function drawn({ points, color, isArea }: Series, x: (s: number) => number, y: (v: number) => number): string {
  const [first] = points;
  if (!first) return "";
  let path = `M${fixed(x(first.seconds))} ${fixed(y(first.value))}`;
  let last = first;
  for (const point of points) {
    // A point that changes nothing is not drawn: hundreds of samples become a few steps.
    if (point.value !== last.value) {
      path += `H${fixed(x(point.seconds))}V${fixed(y(point.value))}`;
      last = point;
    }
  }
  const end = points.at(-1) ?? first;
  path += `H${fixed(x(end.seconds))}`;
  if (isArea) return `<path d="${path}V${fixed(y(0))}H${fixed(x(first.seconds))}Z" fill="${color}"/>`;
  return `<path d="${path}" fill="none" stroke="${color}" stroke-width="2"/>`;
}

function legend(name: string, color: string, x: number): string {
  return `<rect x="${x}" y="32" width="12" height="12" fill="${color}"/>${label(x + 18, 42, name, "start")}`;
}

function gridLine(value: number, y: number): string {
  const line = `<line x1="${MARGIN.left}" x2="${WIDTH - MARGIN.right}" y1="${fixed(y)}" y2="${fixed(y)}" stroke="#d1d9e0"/>`;
  return `${line}${label(MARGIN.left - 8, y + 4, `${value}`, "end")}`;
}

function label(x: number, y: number, text: string, anchor: string): string {
  return `<text x="${fixed(x)}" y="${fixed(y)}" text-anchor="${anchor}" fill="#59636e">${escaped(text)}</text>`;
}

function ticks(top: number): number[] {
  const step = stepOf(top);
  return Array.from({ length: Math.floor(top / step) + 1 }, (_, at) => at * step);
}

/** The first multiple of a round step that is not below `value`. */
function niceTop(value: number): number {
  const step = stepOf(value);
  return Math.ceil(value / step) * step;
}

/** 1, 2 or 5 times a power of ten, so that about `TICKS` steps make `top`. */
function stepOf(top: number): number {
  const rough = top / TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const factor = [1, 2, 5, 10].find((each) => each * power >= rough) ?? 10;
  return Math.max(1, factor * power);
}

function fixed(value: number): string {
  return value.toFixed(1).replace(/\.0$/, "");
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
