import { cut, type Paint, plain, type Style } from "./text.ts";

/** Piece of a line: a text without styles, and its style. */
export interface Cell {
  readonly text: string;
  readonly style?: Style | undefined;
}

/** What the terminal can show. */
export interface Screen {
  readonly columns: number;
  readonly rows: number;
  readonly colour: boolean;
}

/** Columns that cells take. */
export function lengthOf(cells: readonly Cell[]): number {
  return cells.reduce((sum, { text }) => sum + [...text].length, 0);
}

/** Cells as one line that fits. */
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
