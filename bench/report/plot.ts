import { parse, View } from "vega";
import { compile, type TopLevelSpec } from "vega-lite";

/** An image in a report. */
export interface Plot {
  /** The file name without `.svg`. Unique within a scenario. */
  readonly name: string;
  readonly title: string;
  readonly svg: string;
}

/** One line of a plot. The points are in ascending order of x. */
export interface Series {
  readonly name: string;
  readonly points: readonly { readonly x: number; readonly y: number }[];
}

export interface Axis {
  readonly title: string;
  /** Use a logarithmic scale. It can't show values of zero or less. */
  readonly isLog?: boolean;
}

export interface PlotOptions {
  readonly name: string;
  readonly title: string;
  readonly x: Axis;
  readonly y: Axis;
  /** Draw steps: a value stays the same until the next point. */
  readonly isStepped?: boolean;
  /** Mark each point. */
  readonly hasPoints?: boolean;
}

const WIDTH = 760;
const HEIGHT = 300;

/** Draws a line plot with one color per series and a legend. */
export async function linePlot(options: PlotOptions, series: readonly Series[]): Promise<Plot> {
  const { name, title, x, y, isStepped = false, hasPoints = false } = options;
  const values = series.flatMap(({ name, points }) => points.map((point) => ({ ...point, series: name })));
  const spec: TopLevelSpec = {
    title: { text: title, anchor: "start" },
    width: WIDTH,
    height: HEIGHT,
    data: { values },
    mark: { type: "line", interpolate: isStepped ? "step-after" : "linear", point: hasPoints },
    encoding: {
      x: { field: "x", type: "quantitative", title: x.title, scale: scaleOf(x) },
      y: { field: "y", type: "quantitative", title: y.title, scale: scaleOf(y) },
      color: {
        field: "series",
        type: "nominal",
        title: null,
        sort: series.map(({ name }) => name),
        legend: { orient: "top", labelLimit: WIDTH },
      },
    },
  };
  const view = new View(parse(compile(spec).spec), { renderer: "none" });
  try {
    return { name, title, svg: await view.toSVG() };
  } finally {
    view.finalize();
  }
}

const scaleOf = ({ isLog = false }: Axis) => (isLog ? { type: "log" as const } : { type: "linear" as const });

/** Returns the cumulative distribution of the values: the share of values that are at most x. */
export function shares(name: string, values: readonly number[]): Series {
  const sorted = values.toSorted((a, b) => a - b);
  return { name, points: sorted.map((x, at) => ({ x, y: (at + 1) / sorted.length })) };
}
