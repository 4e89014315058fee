import { cut, type Paint, plain, type Style } from "./text.ts";

/** A part of a line: a text without styles, and its style. */
export interface Cell {
  readonly text: string;
  readonly style?: Style | undefined;
}

/** The terminal's size and abilities. */
export interface Screen {
  readonly columns: number;
  readonly rows: number;
  readonly colour: boolean;
}

/** The number of columns that the cells take. */
export function lengthOf(cells: readonly Cell[]): number {
  return cells.reduce((sum, { text }) => sum + [...text].length, 0);
}

/** Renders cells as one line, cut to the width. */
export function line(cells: readonly Cell[], columns: number, paint: Paint): string {
  let left = columns;
  let result = "";
  for (const { text, style } of cells) {
    const shown = cut(text, left);
    left -= [...shown].length;
    result += paint(shown.trim() === "" ? undefined : style, shown);
    if (left <= 0) break;
  }
  return paint === plain ? result.trimEnd() : result;
}
