import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Progress } from "../../../testbed/cluster/progress.ts";
import { temporaryDir } from "./temporary.ts";

/**
 * A fake Go that builds instantly: it logs its arguments, and writes short texts instead of binaries. If FAKE_SOURCE
 * names a file, that file is what it vendors, with the content FAKE_TEXT, and what it builds from.
 */
const FAKE_GO = `#!/bin/sh
echo "$*" >> "$GO_LOG"
case "$1" in
env) echo "\${FAKE_VERSION:-go1.26.8}" ;;
mod) mkdir -p "$(dirname "$FAKE_SOURCE")"; echo "$FAKE_TEXT" > "$FAKE_SOURCE" ;;
list) echo "go: downloading example.com/x v1.0.0"; echo unsafe; echo fmt; echo main ;;
build)
  echo fmt
  if [ -n "$FAKE_FAILURE" ]; then echo "# main"; echo "main.go:1: $FAKE_FAILURE"; exit 1; fi
  while [ "$1" != -o ]; do shift; done
  out=$2; shift 2
  for package; do
    case "$out" in */) file=$out$(basename "$package") ;; *) file=$out ;; esac
    echo "$GOCACHE" > "$file"; chmod 755 "$file"
    if [ -n "$FAKE_SOURCE" ]; then cat "$FAKE_SOURCE" >> "$file"; fi
  done ;;
esac
`;

export interface Machine {
  readonly env: Record<string, string>;
  readonly cache: string;
  /** The arguments of each run of Go. */
  calls(): Promise<string[]>;
}

/** Returns a separate machine: its PATH starts with the fake Go, its cache is empty, and it downloads nothing. */
export async function machine(more: Record<string, string> = {}): Promise<Machine> {
  const dir = await temporaryDir();
  const bin = join(dir, "bin");
  const log = join(dir, "go.log");
  await mkdir(bin);
  await writeFile(join(bin, "go"), FAKE_GO, { mode: 0o755 });
  await writeFile(log, "");
  return {
    cache: join(dir, "cache", "berth", "control-plane"),
    env: {
      ...{ PATH: `${bin}:/usr/bin:/bin`, HOME: dir, XDG_CACHE_HOME: join(dir, "cache"), GO_LOG: log },
      BERTH_TEST_DOWNLOADS: "off",
      ...more,
    },
    calls: async () => (await readFile(log, "utf8")).trim().split("\n"),
  };
}

/** Returns a progress that keeps its lines. */
export function recorder(): Progress & { readonly lines: string[] } {
  const lines: string[] = [];
  return { lines, update() {}, clear() {}, line: (text) => void lines.push(text) };
}
