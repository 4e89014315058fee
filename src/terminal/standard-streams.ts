import { text } from "node:stream/consumers";
import type { CliStreams } from "./streams.ts";

/**
 * The streams of this process. Who reads only the beginning (`| head`, a pager that is left) has had enough: what is
 * written after that is dropped, and the command ends as it would. What else goes wrong with writing is thrown.
 */
export function standardStreams(): CliStreams {
  for (const stream of [process.stdout, process.stderr]) stream.off("error", unlessUnread).on("error", unlessUnread);
  return {
    out: (written) => void process.stdout.write(written),
    err: (written) => void process.stderr.write(written),
    isTerminal: process.stdout.isTTY === true,
    input: () => text(process.stdin),
  };
}

function unlessUnread(error: NodeJS.ErrnoException): void {
  if (error.code !== "EPIPE") throw error;
}
