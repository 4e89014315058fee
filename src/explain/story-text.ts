import { oneLine, type Paint } from "../observe/terminal.ts";
import type { Story } from "./explain.ts";
import type { Entry } from "./timeline.ts";
import type { Verdict } from "./verdict.ts";

const WHAT_WIDTH = 19;
const SOURCE_WIDTH = 11;
const MS_PART = /\.(\d{3})Z$/;

/** The story for a person: who it is about, the time line, and what became of it. */
export function storyText(story: Story, paint: Paint): string {
  const { asked, sessions, workItems, pods, environments, timeline, verdict, looked } = story;
  const named: readonly (readonly [string, readonly string[]])[] = [
    ["session", sessions],
    ["work item", workItems],
    ["Pod", pods],
    ["Environment", environments],
  ];
  // Ids have any character, and most of them stand where whoever may write to a Pod, a Secret or an Event can change them.
  const known = named
    .filter(([, names]) => names.length > 0)
    .map(([what, names]) => `${what} ${names.map(oneLine).join(", ")}`);
  const head = `${paint.strong(oneLine(asked))}${known.length > 0 ? `: ${known.join("; ")}` : ""}\n`;
  const lines = timeline.map((entry) => lineOf(entry, paint)).join("");
  const blind = looked.filter(({ found }) => found === null);
  const notes = blind
    .map(({ where, note }) => paint.faint(`not looked at: ${where}: ${oneLine(note ?? "")}\n`))
    .join("");
  const parts = [head, lines, notes, verdictText(verdict, paint)].filter((part) => part !== "");
  return parts.join("\n");
}

function lineOf({ at, what, source, message }: Entry, paint: Paint): string {
  // Kubernetes has whole seconds: a part that nobody measured is not shown.
  const time = at.replace(MS_PART, (part, ms: string) => (ms === "000" ? "Z    " : part));
  return `${paint.faint(time)}  ${what.padEnd(WHAT_WIDTH)}${paint.faint(source.padEnd(SOURCE_WIDTH + 1))}${oneLine(message)}\n`;
}

function verdictText({ standing, sentence, mend }: Verdict, paint: Paint): string {
  return `${colourOf(standing, paint)(oneLine(sentence))}\n-> ${oneLine(mend)}\n`;
}

function colourOf(standing: Verdict["standing"], paint: Paint): (text: string) => string {
  return standing === "unknown" ? paint.doubtful : paint.strong;
}
