import { randomBytes } from "node:crypto";
import { readFileSync, readlinkSync } from "node:fs";
import { mkdir, open, readFile, rename, rm, stat, utimes } from "node:fs/promises";
import { dirname } from "node:path";
import { setTimeout as delay } from "node:timers/promises";

/** How often the holder touches its lock, and how often a waiter checks it. */
const TOUCH_MS = 500;
/**
 * A lock that wasn't touched for this long is stale regardless of its pid, because its holder may live in another pid
 * namespace.
 */
const STALE_MS = 30_000;

interface Holder {
  readonly pid: number;
  /** The start time of the process in clock ticks since boot. A pid can be reused, but not the pair. */
  readonly started: string;
  /** The pid namespace that `pid` belongs to. */
  readonly namespace: string;
}

export interface LockOptions {
  readonly signal?: AbortSignal;
  /** Called once if another process holds the lock, with its pid. */
  readonly onWait?: (pid: number) => void;
  readonly touchMs?: number;
  readonly staleMs?: number;
}

/**
 * Runs `fn` while this process holds the lock file at `path`. Waits for other holders, and removes a lock whose
 * holder has ended. The lock only avoids duplicate work. It doesn't fence, so `fn` must publish its results atomically.
 */
export async function withLock<T>(path: string, fn: () => Promise<T>, options: LockOptions = {}): Promise<T> {
  await mkdir(dirname(path), { recursive: true });
  const { touchMs = TOUCH_MS } = options;
  const token = await acquire(path, options);
  const touch = setInterval(() => {
    const now = new Date();
    utimes(path, now, now).catch(() => {});
  }, touchMs);
  touch.unref();
  try {
    return await fn();
  } finally {
    clearInterval(touch);
    // Another process may have judged this one stale (a suspended laptop) and may hold the lock now. Don't remove its
    // lock.
    if ((await readFile(path, "utf8").catch(() => "")) === token) await rm(path, { force: true });
  }
}

async function acquire(path: string, options: LockOptions): Promise<string> {
  const { staleMs = STALE_MS, touchMs = TOUCH_MS, signal, onWait } = options;
  // The token is random because two parts of one process may want the same lock.
  const token = `${JSON.stringify({ ...self(), nonce: randomBytes(8).toString("hex") })}\n`;
  let told = false;
  for (;;) {
    signal?.throwIfAborted();
    if (await create(path, token)) return token;
    const held = await inspect(path);
    if (held === undefined) continue;
    if (isStale(held, staleMs)) {
      await takeAway(path, held.text);
      continue;
    }
    if (!told) onWait?.(held.holder?.pid ?? 0);
    told = true;
    await delay(touchMs, undefined, { ...(signal && { signal }) });
  }
}

async function create(path: string, token: string): Promise<boolean> {
  try {
    await using file = await open(path, "wx");
    await file.writeFile(token);
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "EEXIST") return false;
    throw error;
  }
}

interface Held {
  readonly text: string;
  readonly holder: Holder | undefined;
  readonly ageMs: number;
}

async function inspect(path: string): Promise<Held | undefined> {
  try {
    const [text, info] = await Promise.all([readFile(path, "utf8"), stat(path)]);
    return { text, holder: parseHolder(text), ageMs: Date.now() - info.mtimeMs };
  } catch {
    return undefined;
  }
}

function parseHolder(text: string): Holder | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null) return undefined;
    const { pid, started, namespace } = value as Partial<Holder>;
    if (typeof pid !== "number" || typeof started !== "string" || typeof namespace !== "string") return undefined;
    return { pid, started, namespace };
  } catch {
    // The file was created but not written, or its writer was killed in between. Its age decides.
    return undefined;
  }
}

function isStale(held: Held, staleMs: number): boolean {
  if (held.ageMs > staleMs) return true;
  const { holder } = held;
  if (!holder || holder.namespace !== pidNamespace()) return false;
  return processStart(holder.pid) !== holder.started;
}

/** Moves the stale lock aside first. If two waiters saw it, only one of them gets the file. */
async function takeAway(path: string, text: string): Promise<void> {
  const aside = `${path}.stale-${process.pid}`;
  try {
    await rename(path, aside);
  } catch {
    return;
  }
  // Another waiter was faster, and this is its new lock. Restore it unless a third lock already exists.
  if ((await readFile(aside, "utf8").catch(() => text)) !== text) await restore(aside, path);
  await rm(aside, { force: true });
}

async function restore(from: string, path: string): Promise<void> {
  const text = await readFile(from, "utf8").catch(() => undefined);
  if (text !== undefined) await create(path, text);
}

function self(): Holder {
  return { pid: process.pid, started: processStart(process.pid) ?? "", namespace: pidNamespace() };
}

function pidNamespace(): string {
  try {
    return readlinkSync("/proc/self/ns/pid");
  } catch {
    return "";
  }
}

/**
 * Returns the start time of a live process (field 22 of proc_pid_stat(5)). Returns undefined if there is none or if
 * it's a zombie.
 */
export function processStart(pid: number): string | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "utf8");
    // Field 2, the command, may contain spaces and parentheses, so start after the last closing one.
    const [state, ...fields] = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return state === "Z" || state === "X" ? undefined : fields[18];
  } catch {
    return undefined;
  }
}
