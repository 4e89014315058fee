import { once } from "node:events";
import { get, type IncomingMessage } from "node:http";
import { text } from "node:stream/consumers";

/** What /metrics says: lines of samples, without comments. */
export async function readMetrics(address: string | undefined): Promise<readonly string[]> {
  const [reply] = (await once(get(`http://${address}/metrics`, { agent: false }), "response")) as [IncomingMessage];
  return (await text(reply)).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
}

/** The sum of all series of a name, over their labels; `label`, as it stands in the text, picks some. */
export function sumOf(lines: readonly string[], name: string, label = ""): number {
  return lines
    .filter((line) => (line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && line.includes(label))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
}
