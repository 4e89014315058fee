import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { pipeline } from "node:stream/promises";

/** Writes bytes to a file and returns their digest, as `sha256:` with hexadecimal digits, and their number. */
export async function writeHashed(
  path: string,
  bytes: AsyncIterable<Buffer>,
  { mode }: { readonly mode?: number } = {},
): Promise<{ readonly digest: string; readonly size: number }> {
  const hash = createHash("sha256");
  let size = 0;
  await pipeline(
    bytes,
    async function* (chunks: AsyncIterable<Buffer>) {
      for await (const chunk of chunks) {
        hash.update(chunk);
        size += chunk.length;
        yield chunk;
      }
    },
    createWriteStream(path, { mode }),
  );
  return { digest: `sha256:${hash.digest("hex")}`, size };
}
