import { execFile } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { type Dispatcher, EnvHttpProxyAgent, interceptors, request } from "undici";
import { writeHashed } from "./hashed-file.ts";
import { MissingToolError } from "./missing.ts";
import type { Progress } from "./progress.ts";
import type { ReleaseFile, ToolModule } from "./versions.ts";

/** The URL of a mirror of the official binaries, or `off`. By default they come from the official servers. */
export const DOWNLOADS_VARIABLE = "BERTH_TEST_DOWNLOADS";
const OFF = "off";
const OFFICIAL = "https://";

/** A machine without a network builds instead, so it must not wait long for this. */
const CONNECT_MS = 5_000;
/** Servers answer within a second. A transfer without any data for this long has stalled. */
const STALL_MS = 15_000;
/** The limit for all files. A network that is this slow still suits a machine that can't build. */
const TOTAL_MS = 60 * 60_000;
/** GitHub and dl.k8s.io each redirect once, to the server that has the files. */
const MAX_REDIRECTS = 5;
const MEGABYTE = 1_000_000;

/** The architectures with official binaries of everything, as Go names them. */
const ARCHITECTURES: Readonly<Partial<Record<NodeJS.Architecture, string>>> = { x64: "amd64", arm64: "arm64" };

/** Returns this machine's architecture as Go names it, or undefined if there are no official binaries for it. */
export function releaseArch(): string | undefined {
  return process.platform === "linux" ? ARCHITECTURES[process.arch] : undefined;
}

/**
 * Returns what to put before the address of a release file, or undefined if downloads are off.
 * Throws MissingToolError for an invalid setting.
 */
export function downloadBase(env: NodeJS.ProcessEnv): string | undefined {
  const value = env[DOWNLOADS_VARIABLE];
  if (!value) return OFFICIAL;
  if (value === OFF) return undefined;
  const url = URL.canParse(value) ? new URL(value) : undefined;
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password || url.search || url.hash) {
    // The value may contain a password, so the message doesn't show it.
    throw new MissingToolError(
      `${DOWNLOADS_VARIABLE} is neither "${OFF}" nor the http or https URL of a mirror: use for example ` +
        "https://mirror.example.com/releases, without credentials.",
    );
  }
  return url.href.endsWith("/") ? url.href : `${url.href}/`;
}

export interface DownloadOptions {
  /** What to put before each file's address, from `downloadBase`. */
  readonly base: string;
  readonly arch: string;
  readonly progress: Progress;
  readonly stallMs?: number;
}

/**
 * Downloads the official binaries of some modules into an empty folder, checks them, and returns the subfolder with the
 * commands. Throws an error whose message names the URL and what is wrong.
 */
export async function downloadReleases(
  modules: readonly ToolModule[],
  dir: string,
  options: DownloadOptions,
): Promise<string> {
  const { base, arch, progress, stallMs = STALL_MS } = options;
  const bin = join(dir, "bin");
  await mkdir(bin);
  // Follows HTTPS_PROXY, as Go and npm do.
  const agent = new EnvHttpProxyAgent({
    connect: { timeout: CONNECT_MS },
    headersTimeout: stallMs,
    bodyTimeout: stallMs,
  });
  const dispatcher = agent.compose(interceptors.redirect({ maxRedirections: MAX_REDIRECTS }));
  const signal = AbortSignal.timeout(TOTAL_MS);
  const get = async (url: string) => {
    const response = await request(url, { dispatcher, signal });
    if (response.statusCode === 200) return response;
    await response.body.dump();
    throw new Error(`the server answered ${response.statusCode}`);
  };
  try {
    for (const file of modules.flatMap((module) => module.release(arch))) {
      const name = basename(file.address);
      const show = (text: string) => progress.update(`Downloading ${name}: ${text}`);
      await downloadFile(file, { base, get, show, path: join(file.members ? dir : bin, file.command ?? name) });
      if (file.members) await extract(join(dir, name), file.members, bin);
    }
  } finally {
    await agent.destroy();
  }
  return bin;
}

interface Transfer {
  readonly base: string;
  /** Throws unless the server answers 200. */
  readonly get: (url: string) => Promise<Dispatcher.ResponseData>;
  readonly show: (text: string) => void;
  /** The target file. */
  readonly path: string;
}

async function downloadFile(file: ReleaseFile, transfer: Transfer): Promise<void> {
  const { base, get, show, path } = transfer;
  const sum = await attempt(`${base}${file.checksums}`, async (url) => {
    const { body } = await get(url);
    const found = findChecksum(await body.text(), basename(file.address));
    if (found === undefined) throw new Error(`no SHA-256 of ${basename(file.address)}`);
    return found;
  });
  await attempt(`${base}${file.address}`, async (url) => {
    const { body, headers } = await get(url);
    const total = Number(headers["content-length"]);
    const { digest } = await writeHashed(path, shown(body, total, show), { mode: 0o755 });
    const actual = digest.replace("sha256:", "");
    if (actual !== sum) throw new Error(`the SHA-256 is ${actual} instead of ${sum}`);
  });
}

/** The chunks of a transfer, each shown as it passes. */
async function* shown(chunks: AsyncIterable<Buffer>, total: number, show: Transfer["show"]): AsyncGenerator<Buffer> {
  let bytes = 0;
  for await (const chunk of chunks) {
    bytes += chunk.length;
    show(total > 0 ? `${megabytes(bytes)} of ${megabytes(total)} MB` : `${megabytes(bytes)} MB`);
    yield chunk;
  }
}

/** Finds the SHA-256 of a file in a list as `sha256sum` writes it, or returns a digest without a name. */
export function findChecksum(text: string, name: string): string | undefined {
  for (const line of text.split("\n")) {
    // sha256sum puts an asterisk before the name of a file that it read as binary.
    const [digest = "", file = name] = line.trim().split(/\s+\*?/);
    if (/^[0-9a-f]{64}$/i.test(digest) && file === name) return digest.toLowerCase();
  }
  return undefined;
}

async function extract(archive: string, members: readonly string[], bin: string): Promise<void> {
  // As root, tar would give the files to the users who packed them.
  const folders = members.some((member) => member.includes("/")) ? 1 : 0;
  const how = ["--no-same-owner", `--strip-components=${folders}`];
  await promisify(execFile)("tar", ["-xzf", archive, "-C", bin, ...how, ...members]);
}

/** Adds the URL to the message of an error. */
async function attempt<T>(url: string, run: (url: string) => Promise<T>): Promise<T> {
  try {
    return await run(url);
  } catch (error) {
    throw new Error(`${url}: ${reason(error)}`, { cause: error });
  }
}

/** Says in plain words why a transfer failed. */
function reason(error: unknown): string {
  const { code = "", message = String(error) } = error instanceof Error ? (error as NodeJS.ErrnoException) : {};
  switch (code) {
    case "UND_ERR_CONNECT_TIMEOUT":
      return "could not connect in time";
    case "UND_ERR_HEADERS_TIMEOUT":
    case "UND_ERR_BODY_TIMEOUT":
      return "the transfer stalled";
    case "UND_ERR_SOCKET":
    case "ECONNRESET":
      return "the transfer was cut";
    default:
      // An error for several addresses has no message.
      return message || code;
  }
}

function megabytes(bytes: number): number {
  return Math.round(bytes / MEGABYTE);
}
