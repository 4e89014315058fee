import { once } from "node:events";
import { get, type IncomingMessage } from "node:http";
import { text } from "node:stream/consumers";

/** Reads /metrics and returns its samples, one per line, without comments. */
export async function readMetrics(address: string | undefined): Promise<readonly string[]> {
  const [reply] = (await once(get(`http://${address}/metrics`, { agent: false }), "response")) as [IncomingMessage];
  return (await text(reply)).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
}

/** Sums all series with a name over their labels. `label` selects some of them by a literal part of the line. */
export function sumOf(lines: readonly string[], name: string, label = ""): number {
  return lines
    .filter((line) => (line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && line.includes(label))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
}
