import { parse, View } from "vega";
import { compile, type TopLevelSpec } from "vega-lite";

/** A picture of a report. */
export interface Plot {
  /** Without `.svg`; unique in its scenario. */
  readonly name: string;
  readonly title: string;
  readonly svg: string;
}

/** One line of a plot: values over x, ascending by x. */
export interface Series {
  readonly name: string;
  readonly points: readonly { readonly x: number; readonly y: number }[];
}

export interface Axis {
  readonly title: string;
  /** For what grows by factors. Zero and less cannot be shown then. */
  readonly isLog?: boolean;
}

export interface PlotOptions {
  readonly name: string;
  readonly title: string;
  readonly x: Axis;
  readonly y: Axis;
  /** A value stays as it is until it changes. */
  readonly isStepped?: boolean;
  /** Each point is shown. */
  readonly hasPoints?: boolean;
}

const WIDTH = 760;
const HEIGHT = 300;

/** Draws lines, one color each, with a legend. */
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

/** How much of the values is at most so large: what a distribution looks like, its tail included. */
export function shares(name: string, values: readonly number[]): Series {
  const sorted = values.toSorted((a, b) => a - b);
  return { name, points: sorted.map((x, at) => ({ x, y: (at + 1) / sorted.length })) };
}
